//! The two ends of a segment's file, header and trailer, read without what is between them.

use crate::trail::scan::read_some;
use graven_format::FormatError;
use graven_format::consts::{ALIGN_BYTES_MAX, TRAILER_FOOTER_BYTES};
use graven_format::segment::SegmentHeader;
use graven_format::trailer::Trailer;
use std::fs::File;
use std::io;

/// Why an end is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Where it should be in the file.
    pub offset: u64,
    /// What is wrong.
    pub why: FormatError,
}

/// The bytes of the header, of which only the length has been looked at.
///
/// # Errors
/// What the system says.
pub fn header_bytes(file: &File) -> io::Result<Result<Vec<u8>, Bad>> {
    let bad = |why| Ok(Err(Bad { offset: 0, why }));
    // All that version 1 writes is at most one page; another version's may be longer.
    let mut bytes = vec![0; ALIGN_BYTES_MAX as usize];
    let have = read_some(file, &mut bytes, 0)?;
    bytes.truncate(have);
    let len = match SegmentHeader::header_len(&bytes) {
        Ok(len) => len,
        Err(why) => return bad(why),
    };
    bytes.resize(len, 0);
    if len > have {
        let all = have + read_some(file, &mut bytes[have..], have as u64)?;
        if all < len {
            let (needed, have) = (len as u64, all as u64);
            return bad(FormatError::Short { what: "segment header", needed, have });
        }
    }
    Ok(Ok(bytes))
}

/// The header.
///
/// # Errors
/// What the system says.
pub fn header(file: &File) -> io::Result<Result<SegmentHeader, Bad>> {
    let bytes = header_bytes(file)?;
    Ok(bytes.and_then(|bytes| SegmentHeader::decode(&bytes).map_err(|why| Bad { offset: 0, why })))
}

/// The trailer at the end of the file and its offset. A segment that is not sealed has none.
///
/// # Errors
/// What the system says.
pub fn trailer(file: &File) -> io::Result<Result<(Trailer, u64), Bad>> {
    let file_len = file.metadata()?.len();
    let mut footer = [0; TRAILER_FOOTER_BYTES];
    let footer_at = file_len.saturating_sub(TRAILER_FOOTER_BYTES as u64);
    let have = read_some(file, &mut footer, footer_at)?;
    let trailer_len = Trailer::footer_len(&footer[..have]).map(|len| len as u64);
    let Some((len, offset)) = trailer_len.and_then(|len| Some((len, file_len.checked_sub(len)?)))
    else {
        return Ok(Err(Bad { offset: footer_at, why: FormatError::Magic("segment trailer") }));
    };
    let mut bytes = vec![0; len as usize];
    let have = read_some(file, &mut bytes, offset)?;
    let decoded = Trailer::decode(&bytes[..have]);
    Ok(decoded.map(|trailer| (trailer, offset)).map_err(|why| Bad { offset, why }))
}
