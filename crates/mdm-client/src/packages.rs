//! Packages of applications: sent from a file and fetched into one, never whole in memory.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use mdm_proto::applications::Application;
use reqwest::{Body, Method, Response, StatusCode, header, multipart};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::{Client, ClientError, TransferError, applications::path};

/// A package may take as long as it takes, as long as it moves.
const WHOLE: Duration = Duration::from_hours(24);
/// For how long nothing may move.
const STALLED: Duration = Duration::from_secs(90);
const CHUNK: usize = 128 * 1024;

/// What is said of a package that is uploaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPackage {
    /// What people call the application: 1 to 200 characters.
    pub name: String,
    /// Which version of it the package holds: 1 to 100 characters.
    pub version: String,
    /// `windows`, `macos`, `linux`, `ios` or `android`.
    pub platform: String,
    /// What people say of it.
    pub description: Option<String>,
    /// The SHA-256 that the package must have, in hexadecimal, if it is known before.
    pub checksum: Option<String>,
    /// What the package is called on disk.
    pub file_name: String,
}

/// The beginning of a package that is here already.
#[derive(Debug, Clone, Default)]
pub struct PartOfPackage {
    hash: Sha256,
    length: u64,
}

impl PartOfPackage {
    /// Reads the part to its end. What is downloaded is then to be written after it.
    pub async fn read(part: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut read = Self::default();
        let mut buffer = BytesMut::with_capacity(CHUNK);
        while part.read_buf(&mut buffer).await? > 0 {
            read.add(&buffer);
            buffer.clear();
        }
        Ok(read)
    }

    /// How many bytes it has.
    pub const fn length(&self) -> u64 {
        self.length
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.length = self.length.saturating_add(count(bytes));
    }

    /// The SHA-256 of all that was added, compared with what it should be.
    fn check(&self, expected: &str) -> Result<(), TransferError> {
        let actual = hex::encode(self.hash.clone().finalize());
        if actual.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        let expected = expected.to_owned();
        Err(TransferError::Damaged { expected, actual })
    }
}

/// What a running upload has in common with the one who waits for it.
#[derive(Default)]
struct Sent {
    part: Mutex<PartOfPackage>,
    length: AtomicU64,
}

impl Client {
    /// Uploads a package from a file, all of it. `progress` is told how many bytes are gone. That
    /// the server stored what the file holds is checked by SHA-256.
    pub async fn upload_application(
        &self,
        package: &NewPackage,
        mut file: File,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<Application, TransferError> {
        file.rewind().await?;
        let length = file.metadata().await?.len();
        let sent = Arc::new(Sent::default());
        let body = Body::wrap_stream(chunks(file.take(length), Arc::clone(&sent), progress));
        let part = multipart::Part::stream_with_length(body, length)
            .file_name(package.file_name.clone())
            .mime_str("application/octet-stream")
            .map_err(ClientError::from)?;
        // The server can refuse a wrong text before it has taken the package.
        let form = texts(package).part("package", part);
        let call = self.call(Method::POST, "/api/v1/applications")?;
        let call = call.with(|request| request.timeout(WHOLE).multipart(form));
        let answer = while_it_moves(call.answer::<Application>(), &sent.length);
        let application = answer.await?;
        let part = sent.part.lock().unwrap_or_else(PoisonError::into_inner);
        part.check(&application.checksum)?;
        Ok(application)
    }

    /// Fetches a package and writes it to `to`, after the part that is `here` already. `progress`
    /// is told how many bytes are here. After a failed call, all that was written is good, and it
    /// can go on from there; a package that was damaged has to be fetched anew.
    pub async fn download_package(
        &self,
        application: &Application,
        mut here: PartOfPackage,
        to: &mut (impl AsyncWrite + Unpin),
        mut progress: impl FnMut(u64),
    ) -> Result<(), TransferError> {
        let path = format!("{}/package", path(application.id));
        let size = u64::try_from(application.size).unwrap_or(0);
        progress(here.length);
        if here.length < size {
            let mut skip = 0;
            let mut response = self.open_rest(&path, application, &here).await?;
            if response.status() != StatusCode::PARTIAL_CONTENT {
                skip = here.length;
            }
            while let Some(chunk) = next_chunk(&mut response).await? {
                let known = skip.min(count(&chunk));
                skip -= known;
                let new = chunk.slice(usize::try_from(known).unwrap_or(chunk.len())..);
                to.write_all(&new).await?;
                here.add(&new);
                progress(here.length);
                if here.length > size {
                    break;
                }
            }
            to.flush().await?;
        }
        if here.length < size {
            let text = format!("the package ended after {} of {size} bytes", here.length);
            return Err(ClientError::Transport(text).into());
        }
        here.check(&application.checksum)
    }

    /// Asks for what is missing. A server that knows no ranges gives everything.
    async fn open_rest(
        &self,
        path: &str,
        application: &Application,
        here: &PartOfPackage,
    ) -> Result<Response, ClientError> {
        let from = here.length;
        let tag = format!("\"{}\"", application.checksum);
        let response = self
            .open_package(path, (from > 0).then_some((from, tag.as_str())))
            .await?;
        let range = response.headers().get(header::CONTENT_RANGE);
        let range = range.and_then(|range| range.to_str().ok());
        let begins = range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")));
        if response.status() == StatusCode::PARTIAL_CONTENT && !begins {
            return Err(ClientError::Unexpected {
                status: response.status().as_u16(),
                body: "another part of the package than was asked for".to_owned(),
            });
        }
        Ok(response)
    }

    /// Asks for a package, or for what follows a byte of it if it still has the tag.
    pub(crate) async fn open_package(
        &self,
        path: &str,
        rest: Option<(u64, &str)>,
    ) -> Result<Response, ClientError> {
        let mut call = self.call(Method::GET, path)?;
        if let Some((from, tag)) = rest {
            call = call.with(|request| {
                let request = request.header(header::RANGE, format!("bytes={from}-"));
                request.header(header::IF_RANGE, tag)
            });
        }
        let send = call.with(|request| request.timeout(WHOLE)).send();
        timeout(STALLED, send).await.map_err(|_elapsed| stalled())?
    }
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn stalled() -> ClientError {
    let seconds = STALLED.as_secs();
    ClientError::Transport(format!("nothing moved for {seconds} s"))
}

pub(crate) async fn next_chunk(response: &mut Response) -> Result<Option<Bytes>, ClientError> {
    let chunk = timeout(STALLED, response.chunk()).await;
    Ok(chunk.map_err(|_elapsed| stalled())??)
}

fn texts(package: &NewPackage) -> multipart::Form {
    let mut form = multipart::Form::new()
        .text("name", package.name.clone())
        .text("version", package.version.clone())
        .text("platform", package.platform.clone());
    if let Some(description) = &package.description {
        form = form.text("description", description.clone());
    }
    if let Some(checksum) = &package.checksum {
        form = form.text("checksum", checksum.clone());
    }
    form
}

/// A file's chunks, as the connection takes them.
fn chunks(
    file: tokio::io::Take<File>,
    sent: Arc<Sent>,
    progress: impl FnMut(u64) + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let begin = (file, sent, progress);
    stream::try_unfold(begin, |(mut file, sent, mut progress)| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        if file.read_buf(&mut chunk).await? == 0 {
            return Ok(None);
        }
        let length = {
            let mut part = sent.part.lock().unwrap_or_else(PoisonError::into_inner);
            part.add(&chunk);
            part.length
        };
        sent.length.store(length, Ordering::Relaxed);
        progress(length);
        Ok(Some((chunk.freeze(), (file, sent, progress))))
    })
}

/// Waits for the answer as long as the upload moves.
async fn while_it_moves<T>(
    answer: impl Future<Output = Result<T, ClientError>>,
    sent: &AtomicU64,
) -> Result<T, ClientError> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let before = sent.load(Ordering::Relaxed);
        match timeout(STALLED, &mut answer).await {
            Ok(answer) => return answer,
            Err(_) if sent.load(Ordering::Relaxed) != before => {}
            Err(_) => return Err(stalled()),
        }
    }
}
