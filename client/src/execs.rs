//! Commands in sandboxes: starting, watching, ending.

use api_types::{
    Detached, Exec, ExecReply, ExecRequest, OutputStream, ResizeRequest, SignalName, SignalRequest,
    TerminalSize, Word as _,
};
use bytes::Bytes;
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::download::Download;
use crate::error::ClientError;
use crate::exec_stream::{ExecStream, Origin};
use crate::key::IdempotencyKey;
use crate::offsets::Offsets;
use crate::patience::Patience;

/// The longest page that a server gives.
const PAGE: usize = 1000;

/// Which execs of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecsQuery {
    /// Only those that have not ended.
    pub running: bool,
    /// At most so many, the last ones.
    pub last: usize,
}

impl Default for ExecsQuery {
    /// All.
    fn default() -> Self {
        Self { running: false, last: usize::MAX }
    }
}

impl Client {
    /// One exec, running or ended, also after its sandbox is gone.
    pub async fn exec(&self, id: &str) -> Result<Exec, ClientError> {
        self.get(&["execs", id]).await
    }

    /// The execs of a sandbox, also of one that is gone: the newest ones, the oldest of them first.
    pub async fn execs(&self, sandbox: &str, query: ExecsQuery) -> Result<Vec<Exec>, ClientError> {
        self.execs_as(sandbox, query).await
    }

    /// The same, each read as the caller wants it: as a `serde_json::Value`, say.
    pub async fn execs_as<T: DeserializeOwned>(
        &self,
        sandbox: &str,
        query: ExecsQuery,
    ) -> Result<Vec<T>, ClientError> {
        #[derive(Deserialize)]
        struct Page<T> {
            execs: Vec<T>,
            next: Option<String>,
        }
        let mut execs = Vec::new();
        let mut before: Option<String> = None;
        while execs.len() < query.last {
            let limit = (query.last - execs.len()).min(PAGE);
            let mut request = self
                .request(Method::GET, self.url(&["sandboxes", sandbox, "execs"]))
                .query(&[("limit", limit)])
                .query(&[("before", before)]);
            if query.running {
                request = request.query(&[("state", "running")]);
            }
            let page: Page<T> = self.fetch(request).await?;
            execs.extend(page.execs);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        execs.reverse();
        Ok(execs)
    }

    /// Runs a command to its end and answers with all that it wrote. A non-zero exit code is no error.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// let reply = client.run("sb-1", &client::ExecRequest::shell("echo $((6 * 7))")).await?;
    /// assert_eq!((reply.exit_code, reply.stdout.as_str()), (0, "42\n"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run(&self, sandbox: &str, request: &ExecRequest) -> Result<ExecReply, ClientError> {
        self.run_once(sandbox, request).await
    }

    /// Starts a command and follows it to its end. A server that is killed meanwhile is waited for, and no byte is lost or
    /// comes twice. The first connection must succeed.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// use client::{ExecRequest, ExecUpdate};
    ///
    /// let mut exec = client.exec_stream("sb-1", ExecRequest::argv(["make", "test"])).await?;
    /// while let Some(update) = exec.next().await {
    ///     match update? {
    ///         ExecUpdate::Output { bytes, .. } => println!("{}", String::from_utf8_lossy(&bytes)),
    ///         ExecUpdate::Ended(end) => println!("{:?}", end.exit_code),
    ///         ExecUpdate::Started(_) | ExecUpdate::Gone { .. } | ExecUpdate::Interrupted(_) => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn exec_stream(
        &self,
        sandbox: &str,
        mut request: ExecRequest,
    ) -> Result<ExecStream, ClientError> {
        request.stream = Some(true);
        let origin = Origin { sandbox: sandbox.to_owned(), request, key: IdempotencyKey::new() };
        ExecStream::open(self, None, Some(origin), Offsets::default()).await
    }

    /// Follows an exec that was started before, from these offsets on.
    pub async fn follow_exec(&self, exec: &str, offsets: Offsets) -> Result<ExecStream, ClientError> {
        ExecStream::open(self, Some(exec.to_owned()), None, offsets).await
    }

    /// Starts a command that goes on whatever becomes of us, and gives back its id. It is started once, even where the
    /// answer is lost and it is asked for again.
    pub async fn start_exec(&self, sandbox: &str, request: &ExecRequest) -> Result<String, ClientError> {
        let request = ExecRequest { stream: None, detach: Some(true), ..request.clone() };
        Ok(self.run_once::<Detached>(sandbox, &request).await?.exec_id)
    }

    /// Sends a signal to an exec's process group: its name with or without SIG, or its number.
    pub async fn signal_exec(&self, exec: &str, signal: &str) -> Result<(), ClientError> {
        let signal = signal.parse().map_or_else(|_| SignalName::Name(signal.to_owned()), SignalName::Number);
        let body = SignalRequest { signal: Some(signal) };
        let request = self.request(Method::POST, self.url(&["execs", exec, "signal"])).json(&body);
        self.send(request).await.map(drop)
    }

    /// Gives the terminal of a running exec another size.
    pub async fn resize_exec(&self, exec: &str, size: TerminalSize) -> Result<(), ClientError> {
        let body = ResizeRequest { rows: Some(size.rows), cols: Some(size.cols) };
        let request = self.request(Method::POST, self.url(&["execs", exec, "resize"])).json(&body);
        self.send(request).await.map(drop)
    }

    /// Appends to the input of a running exec; with `close` the end of it follows. Answers when all was taken. Whoever types
    /// attaches instead ([`Client::attach`]).
    pub async fn write_stdin(
        &self,
        exec: &str,
        input: impl Into<Bytes>,
        close: bool,
    ) -> Result<(), ClientError> {
        let request = self.request(Method::POST, self.url(&["execs", exec, "stdin"])).body(input.into());
        self.send(request.query(&[("close", close)])).await.map(drop)
    }

    /// One stream of an exec's output as it was written, from this byte on; with `follow` to its end.
    pub async fn output(
        &self,
        exec: &str,
        stream: OutputStream,
        offset: u64,
        follow: bool,
    ) -> Result<Download, ClientError> {
        let request = self.request(Method::GET, self.url(&["execs", exec, "output"]));
        let request = request.query(&[("stream", stream.as_str())]).query(&[("offset", offset)]);
        self.download(request.query(&[("follow", follow)])).await
    }

    /// An exec as a recording that asciinema plays: `asciicast-v3` or `asciicast-v2`.
    pub async fn recording(&self, exec: &str, format: &str) -> Result<Download, ClientError> {
        let request = self.request(Method::GET, self.url(&["execs", exec, "recording"]));
        self.download(request.query(&[("format", format)])).await
    }

    /// Ends an exec, with all that it started.
    pub async fn kill_exec(&self, exec: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, self.url(&["execs", exec]))).await.map(drop)
    }

    /// What breaks is asked for again. It may have been started: with the same key it is not started twice.
    async fn run_once<T: DeserializeOwned>(
        &self,
        sandbox: &str,
        request: &ExecRequest,
    ) -> Result<T, ClientError> {
        let key = IdempotencyKey::new();
        self.fetch_once(|| self.exec_request(sandbox, request, &key)).await
    }

    /// Sends a request that is the same one however often it is sent, and asks again where its answer is lost.
    pub(crate) async fn fetch_once<T: DeserializeOwned>(
        &self,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<T, ClientError> {
        let mut patience = Patience::new(self.patience());
        loop {
            match self.fetch(request()).await {
                Err(ClientError::Broken(error)) => {
                    if !patience.again().await {
                        return Err(ClientError::Broken(error));
                    }
                }
                outcome => return outcome,
            }
        }
    }

    pub(crate) fn exec_request(
        &self,
        sandbox: &str,
        request: &ExecRequest,
        key: &IdempotencyKey,
    ) -> RequestBuilder {
        self.request_once(key, Method::POST, self.url(&["sandboxes", sandbox, "exec"])).json(request)
    }
}
