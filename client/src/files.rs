//! Files in a sandbox. Contents are streams: no file is held in memory.

use bytes::Bytes;
use futures::{Stream, TryStream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, Response};
use serde::Deserialize;

use crate::client::Client;
use crate::error::ClientError;

/// A file or a folder in a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FileInfo {
    /// Its name, as the sandbox says it: not to be trusted.
    pub name: String,
    /// Its path.
    pub path: String,
    /// Its size, in bytes. Files of /proc say that they are empty.
    pub size: u64,
    /// Its permissions, in octal: `0644`.
    pub mode: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// What a written file shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Its permissions; 0644 by default.
    pub mode: Option<u32>,
    /// Its length in bytes, where it is known before.
    pub length: Option<u64>,
}

/// The contents of a file, as they come.
pub struct Download {
    client: Client,
    response: Response,
}

impl Download {
    /// The next bytes; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.response.chunk().await.map_err(|error| self.client.lost(error))
    }

    /// All of them, however many.
    pub async fn bytes(self) -> Result<Bytes, ClientError> {
        let Self { client, response } = self;
        response.bytes().await.map_err(|error| client.lost(error))
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
        let url = self.url(&["sandboxes", sandbox, "files"]);
        let response = self.send(self.request(Method::GET, url).query(&[("path", path)])).await?;
        Ok(Download { client: self.clone(), response })
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
