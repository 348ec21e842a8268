use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A real terminal of a fixed size, with one program in it: a tmux server of our own.
pub struct Tmux {
    socket: String,
    dir: tempfile::TempDir,
}

impl Tmux {
    /// Starts a program on a screen of so many columns and rows.
    pub fn start(cols: u16, rows: u16, url: &str, words: &[&str]) -> Self {
        let socket = format!("stacyvm-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let tmux = Self { socket, dir: tempfile::tempdir().unwrap() };
        let config = tmux.dir.path().join("tmux.conf");
        // All rows are the program's.
        std::fs::write(&config, "set -g status off\nset -g history-limit 50000\n").unwrap();
        let mut command = tmux.command();
        command.arg("-f").arg(&config).args([
            "new-session",
            "-d",
            "-x",
            &cols.to_string(),
            "-y",
            &rows.to_string(),
        ]);
        command.args(["-e", &format!("STACYVM_URL={url}"), "-e", "PS1=local> ", "-e", "LANG=C.UTF-8"]);
        // Its last screen and its exit code stay. tmux itself has been seen to miss the end of a program.
        let code = tmux.dir.path().join("code");
        let script = format!("\"$@\"; echo $? >{0}.new; mv {0}.new {0}; exec sleep 10000", code.display());
        command.args(["sh", "-c", &script, "sh"]).args(words);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        tmux
    }

    /// Types text as it is.
    pub fn text(&self, text: &str) {
        self.run(&["send-keys", "-l", "--", text]);
    }

    /// Presses keys by their names: `Enter`, `Escape`, `C-c`.
    pub fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Types a line.
    pub fn line(&self, text: &str) {
        self.text(text);
        self.keys(&["Enter"]);
    }

    /// What the screen shows.
    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// What the screen shows, with all that has left it at the top.
    pub fn history(&self) -> String {
        self.run(&["capture-pane", "-p", "-J", "-S", "-"])
    }

    /// A format of tmux: `#{cursor_x}`, `#{alternate_on}`.
    pub fn ask(&self, format: &str) -> String {
        self.run(&["display-message", "-p", format]).trim().to_owned()
    }

    /// What the terminal is set to, and what it shows.
    pub fn state(&self) -> (String, String) {
        let modes = "#{cursor_x},#{cursor_y} #{alternate_on} #{cursor_flag} #{keypad_cursor_flag} #{keypad_flag} \
            #{insert_flag} #{wrap_flag} #{mouse_any_flag} #{scroll_region_upper},#{scroll_region_lower}";
        (self.screen(), self.ask(modes))
    }

    pub fn resize(&self, cols: u16, rows: u16) {
        self.run(&["resize-window", "-x", &cols.to_string(), "-y", &rows.to_string()]);
    }

    /// The pid of the program.
    pub fn pid(&self) -> i32 {
        self.ask("#{pane_pid}").parse().unwrap()
    }

    /// Waits until the screen is as wanted, and gives it back.
    pub fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: not on the screen\n{screen}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits until the screen has this text.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait(&format!("{text:?}"), |screen| screen.contains(text))
    }

    /// Waits until nothing changes any more.
    pub fn settled(&self) -> (String, String) {
        let began = Instant::now();
        let (mut state, mut since) = (self.state(), Instant::now());
        while since.elapsed() < Duration::from_millis(400) {
            std::thread::sleep(Duration::from_millis(40));
            let now = self.state();
            if now != state {
                (state, since) = (now, Instant::now());
            }
            assert!(began.elapsed() < PATIENCE, "the screen does not come to rest:\n{}", state.0);
        }
        state
    }

    /// Waits until the program has ended, and gives back its exit code.
    pub fn ended(&self) -> i32 {
        let began = Instant::now();
        loop {
            if let Ok(code) = std::fs::read_to_string(self.dir.path().join("code")) {
                return code.trim().parse().unwrap();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn run(&self, words: &[&str]) -> String {
        let output = self.command().args(words).output().unwrap();
        assert!(output.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("tmux");
        for (name, _) in std::env::vars() {
            if name.starts_with("STACYVM_") || name == "TMUX" {
                command.env_remove(name);
            }
        }
        command.env("TMUX_TMPDIR", self.dir.path()).args(["-L", &self.socket]);
        command
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}
