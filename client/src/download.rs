//! Answers that are bytes, of any length.

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::{CONTENT_RANGE, ETAG};

use crate::client::Client;
use crate::error::ClientError;

/// Bytes as they come: the contents of a file, a recording, an export. Nothing is held in memory but what was not taken yet.
pub struct Download {
    client: Client,
    response: Response,
}

impl Download {
    pub(crate) const fn new(client: Client, response: Response) -> Self {
        Self { client, response }
    }

    /// Where the first byte stands in the whole. It is 0 where a part was asked for and the server sends all: a file without
    /// a size (`/proc`), or another version of it than the one that was named.
    pub fn offset(&self) -> u64 {
        let range = self.response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let first = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
        first.unwrap_or(0)
    }

    /// How the server names this version of a file. Whoever reads on later sends it along, so that the parts are of one file.
    pub fn version(&self) -> Option<&str> {
        self.response.headers().get(ETAG).and_then(|version| version.to_str().ok())
    }

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
