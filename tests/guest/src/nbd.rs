//! The server's side of the network block device protocol, as far as QEMU speaks it: one client, simple
//! replies, requests one after the other.
#![expect(clippy::big_endian_bytes, reason = "the protocol is")]

use std::io::{self, Read, Write};

const MAGIC: u64 = 0x4e42_444d_4147_4943; // "NBDMAGIC"
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054; // "IHAVEOPT"
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// Fixed newstyle negotiation, without padding of zeros.
const HANDSHAKE_FLAGS: u16 = 1 | 2;
/// This field is valid; flushes are understood. No barrier within a write (FUA): QEMU then flushes.
const TRANSMISSION_FLAGS: u16 = 1 | 4;

const OPTION_ABORT: u32 = 2;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = (1 << 31) + 1;
const INFO_EXPORT: u16 = 0;

const COMMAND_READ: u16 = 0;
const COMMAND_WRITE: u16 = 1;
const COMMAND_DISCONNECT: u16 = 2;
const COMMAND_FLUSH: u16 = 3;

const ERROR_IO: u32 = 5;
const ERROR_INVALID: u32 = 22;

/// Most bytes of a request or an option; QEMU's own limit for requests.
const LENGTH_MAX: u32 = 32 << 20;

/// What is served.
pub(crate) trait Export {
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Fills `out` from `offset` on.
    fn read(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Takes `bytes` at `offset`.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes durable what was taken.
    fn flush(&mut self) -> io::Result<()>;
}

/// Serves one client until it goes.
pub(crate) fn serve(stream: &mut (impl Read + Write), export: &mut impl Export) -> io::Result<()> {
    if !negotiate(stream, export.len())? {
        return Ok(());
    }
    let mut bytes = Vec::new();
    loop {
        if read_u32(stream)? != REQUEST_MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let _flags = read_u16(stream)?;
        let command = read_u16(stream)?;
        let handle = read_u64(stream)?;
        let offset = read_u64(stream)?;
        let length = read_u32(stream)?;
        if length > LENGTH_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let inside = offset.checked_add(u64::from(length)).is_some_and(|end| end <= export.len());
        bytes.clear();
        bytes.resize(length as usize, 0);
        let done = match command {
            COMMAND_READ if inside => export.read(offset, &mut bytes).map_err(|_| ERROR_IO),
            COMMAND_WRITE => {
                stream.read_exact(&mut bytes)?;
                let written = inside.then(|| export.write(offset, &bytes));
                bytes.clear();
                written.ok_or(ERROR_INVALID).and_then(|it| it.map_err(|_| ERROR_IO))
            }
            COMMAND_FLUSH => export.flush().map_err(|_| ERROR_IO),
            COMMAND_DISCONNECT => return Ok(()),
            _ => Err(ERROR_INVALID),
        };
        let mut reply = Vec::with_capacity(16 + bytes.len());
        reply.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
        reply.extend_from_slice(&done.err().unwrap_or(0).to_be_bytes());
        reply.extend_from_slice(&handle.to_be_bytes());
        if done.is_ok() && command == COMMAND_READ {
            reply.extend_from_slice(&bytes);
        }
        stream.write_all(&reply)?;
    }
}

/// Greets; whether the client wants the export.
fn negotiate(stream: &mut (impl Read + Write), len: u64) -> io::Result<bool> {
    let mut greeting = Vec::new();
    greeting.extend_from_slice(&MAGIC.to_be_bytes());
    greeting.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    greeting.extend_from_slice(&HANDSHAKE_FLAGS.to_be_bytes());
    stream.write_all(&greeting)?;
    let _client_flags = read_u32(stream)?;
    loop {
        if read_u64(stream)? != OPTION_MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let option = read_u32(stream)?;
        let length = read_u32(stream)?;
        if length > LENGTH_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.read_exact(&mut vec![0; length as usize])?;
        match option {
            // There is one export, whatever it is called.
            OPTION_GO => {
                let mut info = Vec::new();
                info.extend_from_slice(&INFO_EXPORT.to_be_bytes());
                info.extend_from_slice(&len.to_be_bytes());
                info.extend_from_slice(&TRANSMISSION_FLAGS.to_be_bytes());
                answer(stream, option, REPLY_INFO, &info)?;
                answer(stream, option, REPLY_ACK, &[])?;
                return Ok(true);
            }
            OPTION_ABORT => {
                answer(stream, option, REPLY_ACK, &[])?;
                return Ok(false);
            }
            _ => answer(stream, option, REPLY_UNSUPPORTED, &[])?,
        }
    }
}

fn answer(stream: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut reply = Vec::new();
    reply.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    reply.extend_from_slice(&option.to_be_bytes());
    reply.extend_from_slice(&kind.to_be_bytes());
    reply.extend_from_slice(&(data.len() as u32).to_be_bytes());
    reply.extend_from_slice(data);
    stream.write_all(&reply)
}

fn read_u16(stream: &mut impl Read) -> io::Result<u16> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn read_u32(stream: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_u64(stream: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
