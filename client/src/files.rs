//! Files in a sandbox. Contents are streams: no file is held in memory.

use api_types::{ChmodRequest, FileInfo, MoveRequest, WriteRequest};
use bytes::Bytes;
use futures::{Stream, TryStream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_RANGE, RANGE};
use reqwest::{Body, Method, RequestBuilder};

use crate::client::Client;
use crate::download::Download;
use crate::error::ClientError;

/// What a written file shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Its permissions; 0644 by default.
    pub mode: Option<u32>,
    /// Its length in bytes, where it is known before.
    pub length: Option<u64>,
}

/// Which part of a file is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The first byte.
    pub offset: u64,
    /// How many bytes at most; to the end without it.
    pub length: Option<u64>,
    /// Of which version ([`Download::version`]). Where there is another one now, all of that is sent instead of a part.
    pub version: Option<String>,
}

impl ReadOptions {
    pub(crate) fn put_on(&self, mut request: RequestBuilder) -> RequestBuilder {
        if self.offset > 0 || self.length.is_some() {
            let last = self.length.map(|length| self.offset.saturating_add(length).saturating_sub(1));
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            request = request.header(RANGE, format!("bytes={}-{last}", self.offset));
            if let Some(version) = &self.version {
                request = request.header(IF_RANGE, version);
            }
        }
        request
    }
}

impl Client {
    /// What is known of a file.
    pub async fn stat_file(&self, sandbox: &str, path: &str) -> Result<FileInfo, ClientError> {
        let url = self.url(&["sandboxes", sandbox, "files", "stat"]);
        self.fetch(self.request(Method::GET, url).query(&[("path", path)])).await
    }

    /// What is in a folder.
    pub async fn list_files(&self, sandbox: &str, path: &str) -> Result<Vec<FileInfo>, ClientError> {
        let url = self.url(&["sandboxes", sandbox, "files", "list"]);
        self.fetch(self.request(Method::GET, url).query(&[("path", path)])).await
    }

    /// Reads a file.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// client.write_file("sb-1", "/workspace/note", "hello").await?;
    /// let note = client.read_file("sb-1", "/workspace/note").await?.bytes().await?;
    /// assert_eq!(note, "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_file(&self, sandbox: &str, path: &str) -> Result<Download, ClientError> {
        self.read_file_part(sandbox, path, &ReadOptions::default()).await
    }

    /// Reads a part of a file. [`Download::offset`] says where it begins: a file without a size is always sent whole.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// use client::ReadOptions;
    ///
    /// let last = ReadOptions { offset: 1 << 20, ..ReadOptions::default() };
    /// let part = client.read_file_part("sb-1", "/workspace/log", &last).await?;
    /// assert_eq!(part.offset(), 1 << 20);
    /// println!("{} bytes after the first MiB", part.bytes().await?.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_file_part(
        &self,
        sandbox: &str,
        path: &str,
        options: &ReadOptions,
    ) -> Result<Download, ClientError> {
        let url = self.url(&["sandboxes", sandbox, "files"]);
        let request = self.request(Method::GET, url).query(&[("path", path)]);
        self.download(options.put_on(request)).await
    }

    /// The paths that match a pattern such as `/workspace/**/*.py`, sorted.
    pub async fn glob_files(&self, sandbox: &str, pattern: &str) -> Result<Vec<String>, ClientError> {
        let url = self.url(&["sandboxes", sandbox, "files", "glob"]);
        self.fetch(self.request(Method::GET, url).query(&[("pattern", pattern)])).await
    }

    /// Deletes a file, or a folder that is empty; with `recursive` a folder with all that is in it.
    pub async fn delete_file(&self, sandbox: &str, path: &str, recursive: bool) -> Result<(), ClientError> {
        let request = self.request(Method::DELETE, self.url(&["sandboxes", sandbox, "files"]));
        let recursive = if recursive { "true" } else { "false" };
        self.send(request.query(&[("path", path), ("recursive", recursive)])).await.map(drop)
    }

    /// Moves or renames a file or a folder.
    pub async fn move_file(&self, sandbox: &str, from: &str, to: &str) -> Result<(), ClientError> {
        let body = MoveRequest { old_path: Some(from.to_owned()), new_path: Some(to.to_owned()) };
        let url = self.url(&["sandboxes", sandbox, "files", "move"]);
        self.send(self.request(Method::POST, url).json(&body)).await.map(drop)
    }

    /// Changes permissions: in octal (`0755`), or as `chmod` takes them (`u+x`).
    pub async fn change_mode(&self, sandbox: &str, path: &str, mode: &str) -> Result<(), ClientError> {
        let body = ChmodRequest { path: Some(path.to_owned()), mode: Some(mode.to_owned()) };
        let url = self.url(&["sandboxes", sandbox, "files", "chmod"]);
        self.send(self.request(Method::POST, url).json(&body)).await.map(drop)
    }

    /// Writes a text file with one JSON request. For bytes and for large files use [`Client::upload_file`].
    pub async fn write_text(&self, sandbox: &str, path: &str, text: &str) -> Result<(), ClientError> {
        let body = WriteRequest {
            path: Some(path.to_owned()),
            content: Some(text.into()),
            ..WriteRequest::default()
        };
        let url = self.url(&["sandboxes", sandbox, "files"]);
        self.send(self.request(Method::POST, url).json(&body)).await.map(drop)
    }

    /// Writes a file that is in memory. It is there when all of it is; folders on the way are made.
    pub async fn write_file(
        &self,
        sandbox: &str,
        path: &str,
        contents: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        self.put_file(sandbox, path, WriteOptions::default(), Body::from(contents.into())).await
    }

    /// Writes a file from a stream.
    pub async fn upload_file<S>(
        &self,
        sandbox: &str,
        path: &str,
        options: WriteOptions,
        contents: S,
    ) -> Result<(), ClientError>
    where
        S: TryStream + Stream + Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        Bytes: From<S::Ok>,
    {
        self.put_file(sandbox, path, options, Body::wrap_stream(contents)).await
    }

    async fn put_file(
        &self,
        sandbox: &str,
        path: &str,
        options: WriteOptions,
        body: Body,
    ) -> Result<(), ClientError> {
        let mut request = self
            .request(Method::PUT, self.url(&["sandboxes", sandbox, "files"]))
            .query(&[("path", path)])
            .header(CONTENT_TYPE, "application/octet-stream");
        if let Some(mode) = options.mode {
            request = request.query(&[("mode", format!("{mode:04o}"))]);
        }
        if let Some(length) = options.length {
            request = request.header(CONTENT_LENGTH, length);
        }
        self.send(request.body(body)).await.map(drop)
    }
}
