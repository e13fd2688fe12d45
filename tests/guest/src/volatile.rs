//! A disk with a volatile write cache: a write is in its cache when it is answered, and on the image when a
//! flush that came later is. A power cut loses of the cache what it likes, sector by sector.

use crate::disk::Disk;
use crate::nbd::{self, Export};
use crate::{GuestError, Result};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// What a power cut leaves whole.
const SECTOR_BYTES: usize = 512;

/// Most bytes in the cache. Past that the oldest write goes to the image by itself, as a cache's does.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// What a power cut takes of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    Everything,
    /// Of each write nothing, all, its end, its beginning, or any of its sectors.
    Anything,
}

/// The disk. It outlives the guests that it is given to.
#[derive(Debug)]
pub struct Volatile {
    cache: Arc<Mutex<Cached>>,
    socket: PathBuf,
    serving: Option<JoinHandle<()>>,
}

/// An image, and what is not on it yet.
#[derive(Debug)]
struct Cached {
    image: File,
    len: u64,
    /// In the order in which they were taken.
    pending: Vec<(u64, Vec<u8>)>,
    pending_bytes: usize,
    honours_flushes: bool,
}

impl Volatile {
    /// A disk that keeps what it has in `image`.
    ///
    /// # Errors
    /// The image cannot be opened.
    pub fn open(image: &Path) -> Result<Self> {
        Self::new(image, true)
    }

    /// One that answers a flush and does nothing, to see that a test notices.
    ///
    /// # Errors
    /// The image cannot be opened.
    pub fn open_lying(image: &Path) -> Result<Self> {
        Self::new(image, false)
    }

    fn new(image: &Path, honours_flushes: bool) -> Result<Self> {
        let opened = OpenOptions::new().read(true).write(true).open(image);
        let opened = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (len, file) =
            opened.map_err(|why| GuestError::failed(format!("open {}", image.display()), why))?;
        let cached =
            Cached { image: file, len, pending: Vec::new(), pending_bytes: 0, honours_flushes };
        Ok(Self {
            cache: Arc::new(Mutex::new(cached)),
            socket: image.with_extension("sock"),
            serving: None,
        })
    }

    /// As the disk of the next guest, and of no other while that runs.
    ///
    /// # Errors
    /// No socket can be made beside the image.
    pub fn plug(&mut self) -> Result<Disk> {
        self.unplug();
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket)
            .map_err(|why| GuestError::failed(format!("bind {}", self.socket.display()), why))?;
        let cache = Arc::clone(&self.cache);
        self.serving = Some(std::thread::spawn(move || {
            let Ok((mut stream, _)) = listener.accept() else { return };
            drop(listener);
            // A guest that is killed is gone in the middle of something.
            let _ = nbd::serve(&mut stream, &mut &*cache);
        }));
        Ok(Disk::Socket(self.socket.clone()))
    }

    /// Waits until the guest, which has ended, has no request left.
    fn unplug(&mut self) {
        let Some(serving) = self.serving.take() else { return };
        // One that never came is waited for no longer.
        drop(UnixStream::connect(&self.socket));
        let _ = serving.join();
    }

    /// What the power cut of a guest that has ended leaves; returns how many bytes were in the cache.
    ///
    /// # Errors
    /// The image cannot be written.
    pub fn power_cut(&mut self, loss: Loss, random: &mut fastrand::Rng) -> Result<usize> {
        self.unplug();
        let mut cache = lock(&self.cache);
        let pending = std::mem::take(&mut cache.pending);
        for (offset, bytes) in pending {
            let sectors = bytes.len().div_ceil(SECTOR_BYTES);
            let kept: Box<dyn FnMut(usize) -> bool> = match (loss, random.u32(..5)) {
                (Loss::Everything, _) | (Loss::Anything, 0) => Box::new(|_| false),
                (_, 1) => Box::new(|_| true),
                (_, 2) => {
                    let end = random.usize(..=sectors);
                    Box::new(move |sector| sector < end)
                }
                (_, 3) => {
                    let begin = random.usize(..=sectors);
                    Box::new(move |sector| sector >= begin)
                }
                _ => Box::new(|_| random.bool()),
            };
            cache
                .keep(offset, &bytes, kept)
                .map_err(|why| GuestError::failed("write an image", why))?;
        }
        Ok(std::mem::take(&mut cache.pending_bytes))
    }
}

impl Drop for Volatile {
    fn drop(&mut self) {
        self.unplug();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Cached {
    fn keep(
        &self,
        offset: u64,
        bytes: &[u8],
        mut kept: impl FnMut(usize) -> bool,
    ) -> io::Result<()> {
        for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            if kept(number) {
                let at = offset + (number * SECTOR_BYTES) as u64;
                self.image.write_all_at(sector, at)?;
            }
        }
        Ok(())
    }

    /// Puts the oldest writes onto the image until at most so many bytes are left.
    fn destage(&mut self, bytes_left: usize) -> io::Result<()> {
        let mut count = 0;
        while self.pending_bytes > bytes_left {
            let (offset, bytes) = &self.pending[count];
            self.image.write_all_at(bytes, *offset)?;
            self.pending_bytes -= bytes.len();
            count += 1;
        }
        self.pending.drain(..count);
        Ok(())
    }
}

fn lock(cache: &Mutex<Cached>) -> std::sync::MutexGuard<'_, Cached> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Export for &Mutex<Cached> {
    fn len(&self) -> u64 {
        lock(self).len
    }

    fn read(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let cache = lock(self);
        cache.image.read_exact_at(out, offset)?;
        let end = offset + out.len() as u64;
        for (at, bytes) in &cache.pending {
            let from = offset.max(*at);
            let to = end.min(at + bytes.len() as u64);
            if from < to {
                let newer = &bytes[(from - at) as usize..(to - at) as usize];
                out[(from - offset) as usize..(to - offset) as usize].copy_from_slice(newer);
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut cache = lock(self);
        cache.pending.push((offset, bytes.to_vec()));
        cache.pending_bytes += bytes.len();
        if cache.honours_flushes { cache.destage(CACHE_BYTES_MAX) } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut cache = lock(self);
        // All were answered: requests are taken one after the other.
        if cache.honours_flushes { cache.destage(0) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(dir: &Path, lying: bool) -> Volatile {
        let image = dir.join("image");
        std::fs::write(&image, vec![b'-'; 8 * SECTOR_BYTES]).unwrap();
        if lying { Volatile::open_lying(&image) } else { Volatile::open(&image) }.unwrap()
    }

    fn on_image(dir: &Path) -> String {
        let bytes = std::fs::read(dir.join("image")).unwrap();
        bytes.chunks(SECTOR_BYTES).map(|sector| char::from(sector[0])).collect()
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_need_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = disk(dir.path(), false);
        let cache = Arc::clone(&disk.cache);
        let mut export = &*cache;
        export.write(0, &[b'a'; 3 * SECTOR_BYTES]).unwrap();
        export.write(512, &[b'b'; SECTOR_BYTES]).unwrap();
        assert_eq!(on_image(dir.path()), "--------", "only the cache has it");
        let mut seen = [0; 3 * SECTOR_BYTES];
        export.read(256, &mut seen).unwrap();
        assert_eq!((seen[0], seen[256], seen[768], seen[1280]), (b'a', b'b', b'a', b'-'));
        export.flush().unwrap();
        export.write(2048, &[b'c'; 4 * SECTOR_BYTES]).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        assert_eq!(disk.power_cut(Loss::Everything, &mut random).unwrap(), 4 * SECTOR_BYTES);
        assert_eq!(on_image(dir.path()), "aba-----");
        let mut torn = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            export.write(2048, &[b'c'; 4 * SECTOR_BYTES]).unwrap();
            disk.power_cut(Loss::Anything, &mut random).unwrap();
            torn.insert(on_image(dir.path()));
            export.write(2048, &[b'-'; 4 * SECTOR_BYTES]).unwrap();
            export.flush().unwrap();
        }
        assert!(torn.iter().all(|seen| seen.starts_with("aba-")));
        assert_eq!(torn.len(), 16, "every set of sectors: {torn:?}");
    }

    #[test]
    fn a_lying_disk_loses_what_was_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = disk(dir.path(), true);
        let cache = Arc::clone(&disk.cache);
        let mut export = &*cache;
        export.write(0, &[b'a'; SECTOR_BYTES]).unwrap();
        export.flush().unwrap();
        disk.power_cut(Loss::Everything, &mut fastrand::Rng::with_seed(1)).unwrap();
        assert_eq!(on_image(dir.path()), "--------");
    }
}
