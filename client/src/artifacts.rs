//! Files that jobs left. Contents are streams: no file is held in memory.

use api_types::JobArtifacts;
use reqwest::Method;

use crate::client::Client;
use crate::download::Download;
use crate::error::ClientError;
use crate::files::ReadOptions;

impl Client {
    /// The files that a job left, by path.
    pub async fn artifacts(&self, job: &str) -> Result<JobArtifacts, ClientError> {
        self.get(&["jobs", job, "artifacts"]).await
    }

    /// Reads one of them, or a part of it.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// use client::ReadOptions;
    ///
    /// let report = client.read_artifact("job-1", "out/report.html", &ReadOptions::default()).await?;
    /// println!("{} bytes", report.bytes().await?.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_artifact(
        &self,
        job: &str,
        path: &str,
        options: &ReadOptions,
    ) -> Result<Download, ClientError> {
        let segments: Vec<&str> = ["jobs", job, "artifacts"].into_iter().chain(path.split('/')).collect();
        let request = self.request(Method::GET, self.url(&segments));
        self.download(options.put_on(request)).await
    }

    /// Reads all of them as one tar archive.
    pub async fn archive_artifacts(&self, job: &str) -> Result<Download, ClientError> {
        let url = self.url(&["jobs", job, "artifacts"]);
        self.download(self.request(Method::GET, url).query(&[("archive", "tar")])).await
    }
}
