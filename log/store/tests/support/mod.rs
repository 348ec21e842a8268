//! Real services for tests: started privately, gone when dropped.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A Postgres server of our own: fresh cluster, unix socket in a temporary directory, no TCP.
pub struct Postgres {
    directory: TempDir,
    server: Child,
}

impl Postgres {
    /// Starts one and waits until it answers. Panics when it cannot: a missing service fails the test.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("pg-").tempdir_in("/tmp").unwrap();
        let data = directory.path().join("data");
        if is_root() {
            // Postgres refuses to run as root.
            let postgres = user_ids("postgres");
            chown(directory.path(), Some(postgres.0), Some(postgres.1)).unwrap();
        }
        let made = as_postgres("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg("--pgdata")
            .arg(&data)
            .stdout(Stdio::null())
            .output()
            .expect("initdb: install postgresql");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let server = Self::serve(&data, directory.path(), log);
        let mut postgres = Self { directory, server };
        postgres.wait();
        postgres
    }

    /// Ends the server at once, as a crash would, and starts it again on the same data.
    pub fn crash_and_restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Ends the server in order: sessions are cut off, and what is recorded is on disk.
    pub fn stop(&mut self) {
        let pid = self.server.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let status = self.server.wait().unwrap();
        assert!(status.success(), "postgres: {status:?}");
    }

    /// Starts a server that was ended, on the same data.
    pub fn start_again(&mut self) {
        let began = Instant::now();
        loop {
            let log = std::fs::File::options().append(true).open(self.directory.path().join("log")).unwrap();
            self.server = Self::serve(&self.directory.path().join("data"), self.directory.path(), log);
            // The children of the one that crashed need a moment to notice; until then their shared memory is in the way.
            std::thread::sleep(Duration::from_millis(200));
            if self.server.try_wait().unwrap().is_none() {
                return self.wait();
            }
            assert!(began.elapsed() < Duration::from_secs(30), "postgres does not start again after a crash");
        }
    }

    /// Makes an empty database and gives its URL.
    pub fn database(&self, name: &str) -> String {
        self.query(&format!("CREATE DATABASE {name}"));
        format!("postgres://postgres@localhost/{name}?host={}", self.directory.path().display())
    }

    /// Runs one statement in the maintenance database.
    pub fn query(&self, sql: &str) {
        let output = self.psql(sql);
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn psql(&self, sql: &str) -> std::process::Output {
        Command::new(binary("psql"))
            .args(["--no-psqlrc", "--username=postgres", "--dbname=postgres", "--command", sql])
            .arg("--host")
            .arg(self.directory.path())
            .output()
            .expect("psql: install postgresql")
    }

    fn serve(data: &Path, socket: &Path, log: std::fs::File) -> Child {
        as_postgres("postgres")
            .arg("-D")
            .arg(data)
            .arg("-k")
            .arg(socket)
            .args(["-c", "listen_addresses=", "-c", "fsync=on"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn wait(&mut self) {
        let started = Instant::now();
        while !self.psql("SELECT 1").status.success() {
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(self.server.try_wait().unwrap().is_none(), "postgres ended: {}", log());
            assert!(started.elapsed() < Duration::from_secs(60), "postgres does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGKILL reaches only the postmaster; its children notice within moments and leave.
    fn kill(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let pid_file = self.directory.path().join("data/postmaster.pid");
        let _ = std::fs::remove_file(pid_file);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A fast shutdown, by pid, so that no child is left behind.
        let pid = self.server.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(10) {
            if matches!(self.server.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }
}

/// A small disk of our own, in memory: it can be filled, and made read-only. Unmounted when dropped.
pub struct Tmpfs {
    directory: TempDir,
}

impl Tmpfs {
    /// One of this size, as `mount` writes it. Panics when it cannot be mounted.
    pub fn mount(size: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("disk-").tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()));
        Self { directory }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes all the room there is, and says which file has it.
    pub fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.path().join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut piece = vec![1; 1 << 20];
        while !piece.is_empty() {
            match file.write(&piece) {
                Ok(0) | Err(_) => piece.truncate(piece.len() / 2),
                Ok(_) => {}
            }
        }
        path
    }

    /// Makes it read-only (`ro`) or not (`rw`).
    pub fn remount(&self, how: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.path()));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: what a failed test still holds open must not keep it.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn user_ids(name: &str) -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:"))).expect("no user postgres");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    (fields.next().unwrap(), fields.next().unwrap())
}

fn as_postgres(program: &str) -> Command {
    let program = binary(program);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program).current_dir("/");
    command
}

/// Debian keeps the server's programs out of the PATH, one directory a version.
fn binary(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.retain(|path| path.exists());
    versions.sort();
    versions.pop().unwrap_or_else(|| PathBuf::from(name))
}
