//! A real S3 server of each test's own: MinIO's, as it is part of JuiceFS, in a directory of its own and on a port that is free.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use objects::{Backend, Limits, S3, Settings};

const PATIENCE: Duration = Duration::from_secs(60);
pub const BUCKET: &str = "artifacts";
pub const ACCESS_KEY: &str = "the-access-key";
pub const SECRET_KEY: &str = "the-secret-key";

/// Ends with the test.
pub struct S3Server {
    directory: PathBuf,
    child: Child,
    address: SocketAddr,
}

impl S3Server {
    /// A server with one empty bucket.
    pub fn start(directory: &Path) -> Self {
        let made = Command::new("juicefs")
            .args(["format", "--storage", "file", "--trash-days", "0", "--bucket"])
            .arg(format!("{}/", directory.join("blocks").display()))
            .args([&meta(directory), BUCKET])
            .output()
            .unwrap_or_else(|error| panic!("juicefs is not there, scripts/setup installs it: {error}"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (child, address) = serve(directory);
        Self { directory: directory.to_owned(), child, address }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What it has is still there. It has another port.
    pub fn start_again(&mut self) {
        self.kill();
        (self.child, self.address) = serve(&self.directory);
    }

    pub fn settings(&self) -> Settings {
        Settings { backend: Backend::S3(self.bucket()), limits: Limits::default() }
    }

    pub fn bucket(&self) -> S3 {
        S3 {
            bucket: BUCKET.to_owned(),
            endpoint: Some(format!("http://{}", self.address)),
            region: "us-east-1".to_owned(),
            prefix: "some/where".to_owned(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.into(),
            allow_http: true,
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn meta(directory: &Path) -> String {
    format!("sqlite3://{}", directory.join("meta.db").display())
}

fn serve(directory: &Path) -> (Child, SocketAddr) {
    let log = directory.join(format!("{}.log", fastrand::u64(..)));
    let output = std::fs::File::create(&log).unwrap();
    let mut child = Command::new("juicefs")
        .args(["--no-agent", "gateway", "--no-usage-report", "--no-bgjob", "--no-banner"])
        .args(["--cache-size", "0", "--metrics", "127.0.0.1:0", "--log"])
        .arg(directory.join("gateway.log"))
        .args([meta(directory).as_str(), "127.0.0.1:0"])
        .env("HOME", directory)
        .env("MINIO_ROOT_USER", ACCESS_KEY)
        .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let began = Instant::now();
    loop {
        if let Some(address) = listening(child.id()).into_iter().find(|address| is_s3(*address)) {
            return (child, address);
        }
        let ended = child.try_wait().unwrap();
        if ended.is_some() || began.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no S3 server ({ended:?}): {}", std::fs::read_to_string(&log).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// On which ports of the loopback a process listens: it was told to take one that is free, and does not tell.
fn listening(pid: u32) -> Vec<SocketAddr> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_str()?.to_owned()))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours =
            *fields.get(3)? == "0A" && sockets.iter().any(|inode| Some(&inode.as_str()) == fields.get(9));
        let port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        ours.then(|| SocketAddr::from(([127, 0, 0, 1], port)))
    };
    table.lines().filter_map(of).collect()
}

fn is_s3(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\nHost: s3\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("AccessDenied"))
}
