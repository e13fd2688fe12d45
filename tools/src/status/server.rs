//! The control socket: a few clients that read, none of which can make the writer wait.
//!
//! One thread runs all of it. A client has one line to say what it wants; what is written to it is bounded by a
//! small socket buffer and a time, after which it is dropped. Only the trail's owner and root may ask:
//! the socket is theirs, and who connects is asked for again.

use super::metrics;
use super::protocol::{Body, INTERVAL_MS_DEFAULT, REQUEST_BYTES_MAX, Reply, Request, What};
use super::{Board, client};
use graven_format::name;
use rustix::fs::{Mode, fchmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

/// Clients at once.
pub const CLIENTS_MAX: usize = 16;
/// How long a client may take to say what it wants.
const ASK_TIME: Duration = Duration::from_secs(5);
/// How long a client may take to read what there is room for.
const READ_TIME: Duration = Duration::from_secs(2);
/// What the kernel may hold for a client: some snapshots.
const BUFFER_BYTES: usize = 16 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 32;
/// How long to leave the socket alone when the process has no descriptor left for a client.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(100);

/// The thread that answers, until it is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    /// Device and inode of the socket, by which it is known as this one's.
    id: (u64, u64),
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Makes the socket in the trail `dir`, whose lock this process has, and answers at it.
    ///
    /// # Errors
    /// What the system says; something that is no socket and has its name is left alone.
    pub fn start(dir: &Path, board: &Arc<Board>) -> io::Result<Self> {
        let path = dir.join(name::CONTROL);
        let listener = make(dir, &path)?;
        let metadata = path.symlink_metadata()?;
        let (stop, stopped) = oneshot::channel();
        let board = Arc::clone(board);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let mut server =
            Self { path, id: (metadata.dev(), metadata.ino()), stop: Some(stop), thread: None };
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = serve(listener, &board) => {}
                }
            });
        };
        server.thread =
            Some(std::thread::Builder::new().name("graven-control".to_owned()).spawn(serve)?);
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It never waits for anything but clients, and those are gone with it.
            let _ = thread.join();
        }
        // A writer that has taken this one's place has a socket of its own.
        let id = |path: &Path| path.symlink_metadata().ok().map(|it| (it.dev(), it.ino()));
        if id(&self.path) == Some(self.id) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket that nobody but the owner may connect to, from its first moment on.
fn make(dir: &Path, path: &Path) -> io::Result<OwnedFd> {
    match path.symlink_metadata() {
        // A writer that died has left it: this one has the lock.
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("there is something that is no socket")),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(why),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file takes its mode from the socket.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    client::with_short_path(dir, |path| Ok(bind(&socket, &SocketAddrUnix::new(path)?)?))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Answers until it is dropped.
async fn serve(listener: OwnedFd, board: &Arc<Board>) {
    let ticking = Arc::clone(board);
    tokio::spawn(async move {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            ticking.tick();
        }
    });
    let listener = std::os::unix::net::UnixListener::from(listener);
    // It was made non-blocking, and this thread has a runtime.
    let Ok(listener) = UnixListener::from_std(listener) else { return };
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(NO_DESCRIPTOR_PAUSE).await;
            continue;
        };
        let admitted = admit(&stream).and_then(|()| {
            let place = Arc::clone(&places).try_acquire_owned();
            place.map_err(|_| format!("{CLIENTS_MAX} others are being answered"))
        });
        match admitted {
            Ok(place) => {
                tokio::spawn(client(stream, Arc::clone(board), place));
            }
            Err(why) => {
                board.clients.refused.fetch_add(1, Ordering::Relaxed);
                // It has room in its buffer, or else it is none of ours to wait for.
                let _ = stream.try_write(&Reply::line(Body::Error(why)));
            }
        }
    }
}

/// Whether this client may ask.
fn admit(stream: &UnixStream) -> Result<(), String> {
    let who = stream.peer_cred().map_err(|why| format!("who asks is not known: {why}"))?;
    let own = rustix::process::geteuid().as_raw();
    if who.uid() != own && who.uid() != 0 {
        return Err("only the trail's owner and root may ask".to_owned());
    }
    sockopt::set_socket_send_buffer_size(stream, BUFFER_BYTES).map_err(|why| why.to_string())
}

/// A client that is being answered, and counted as long.
struct Counted(Arc<Board>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.clients.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The whole life of a client.
async fn client(mut stream: UnixStream, board: Arc<Board>, _place: OwnedSemaphorePermit) {
    board.clients.now.fetch_add(1, Ordering::Relaxed);
    let counted = Counted(board);
    let board = &counted.0;
    let answered = match timeout(ASK_TIME, ask(&mut stream)).await {
        Ok(Ok(request)) => {
            board.clients.requests.fetch_add(1, Ordering::Relaxed);
            answer(&mut stream, board, request).await
        }
        Ok(Err(why)) => send(&mut stream, Body::Error(why)).await,
        Err(_) => Err(Slow),
    };
    if answered.is_err() {
        board.clients.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The client does not say what it wants, or does not read.
struct Slow;

/// What the client wants, or what is wrong with it.
async fn ask(stream: &mut UnixStream) -> Result<Request, String> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(REQUEST_BYTES_MAX));
    reader.read_until(b'\n', &mut line).await.map_err(|why| why.to_string())?;
    if line.len() as u64 == REQUEST_BYTES_MAX {
        return Err(format!("a request has at most {REQUEST_BYTES_MAX} bytes"));
    }
    Request::parse(&line)
}

async fn answer(stream: &mut UnixStream, board: &Board, request: Request) -> Result<(), Slow> {
    match request.request {
        What::Status => send(stream, Body::Status(Box::new(board.snapshot()))).await,
        What::Metrics => send(stream, Body::Metrics(metrics::openmetrics(&board.snapshot()))).await,
        What::Watch => {
            let ms = request.interval_ms.unwrap_or(INTERVAL_MS_DEFAULT);
            watch(stream, board, Duration::from_millis(ms)).await
        }
    }
}

/// Snapshots until the client has gone.
async fn watch(stream: &mut UnixStream, board: &Board, every: Duration) -> Result<(), Slow> {
    let mut due = interval_at(Instant::now(), every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = due.tick() => send(stream, Body::Status(Box::new(board.snapshot()))).await?,
            // It has nothing more to say: it has gone, or speaks out of turn.
            _ = stream.readable() => {
                match stream.try_read(&mut [0; 64]) {
                    Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return Ok(()),
                }
            }
        }
    }
}

/// Writes a reply, for as long as the client may take. That it has gone is its own affair.
async fn send(stream: &mut UnixStream, body: Body) -> Result<(), Slow> {
    match timeout(READ_TIME, stream.write_all(&Reply::line(body))).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Slow),
    }
}
