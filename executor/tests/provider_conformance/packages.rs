//! What package managers do, with packages that are made here: there is no network.

use agent::client::{Client, WriteFile};
use executor::provider::BoxHandle;

use crate::rig::{Rig, shell};

async fn put(handle: &BoxHandle, path: &str, bytes: impl Into<bytes::Bytes>, mode: u32) {
    let file = WriteFile { mode, ..WriteFile::new(path) };
    Client::with(handle.agent.clone()).put_file(file, bytes.into()).await.expect("write a file");
}

async fn well(handle: &BoxHandle, line: &str) -> String {
    let ran = shell(handle, line).await;
    assert_eq!(ran.code(), 0, "{line}: {ran:?}");
    ran.stdout
}

/// A package with a file of another owner and a user of its own, in a repository behind a web server on loopback.
pub async fn apt_installs_from_a_loopback_repository(rig: &Rig) {
    let mut spec = rig.spec();
    spec.memory_mib = 512;
    let handle = rig.create(&rig.order(spec)).await;
    let script = r#"
set -e
mkdir -p /build/DEBIAN /build/usr/bin /build/var/lib/greeter /repository
cat >/build/DEBIAN/control <<'END'
Package: greeter
Version: 1.0
Architecture: all
Maintainer: Nobody <nobody@example.invalid>
Description: says hello
END
cat >/build/DEBIAN/postinst <<'END'
#!/bin/sh
set -e
useradd --system --home-dir /var/lib/greeter --shell /usr/sbin/nologin greeter
chown greeter:greeter /var/lib/greeter
END
chmod 755 /build/DEBIAN/postinst
printf '#!/bin/sh\necho hello\n' >/build/usr/bin/greet
chmod 755 /build/usr/bin/greet
chown games:games /build/usr/bin/greet
dpkg-deb --build /build /repository/greeter.deb >/dev/null
cd /repository
{ dpkg-deb --field greeter.deb
  echo "Filename: greeter.deb"
  echo "Size: $(stat -c %s greeter.deb)"
  echo "SHA256: $(sha256sum greeter.deb | cut -d' ' -f1)"; } >Packages
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] http://127.0.0.1:8000/ ./' >/etc/apt/sources.list
# Fetched by apt's own unprivileged user.
python3 -m http.server 8000 --bind 127.0.0.1 >/tmp/http.log 2>&1 &
server=$!
for attempt in $(seq 100); do
    python3 -c 'import socket; socket.create_connection(("127.0.0.1", 8000))' 2>/dev/null && break
    sleep 0.1
done
apt-get -qq -o Acquire::http::Proxy=false update
apt-get -qq -o Acquire::http::Proxy=false install --yes greeter >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; exit 1; }
kill $server
"#;
    put(&handle, "/root/install", script, 0o755).await;
    let ran = shell(&handle, "bash /root/install").await;
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert!(!ran.stderr.contains("unsandboxed"), "apt kept root: {ran:?}");
    assert_eq!(
        well(&handle, "greet && stat -c %U /usr/bin/greet /var/lib/greeter").await,
        "hello\ngames\ngreeter\n"
    );
    assert!(well(&handle, "dpkg --status greeter").await.contains("Status: install ok installed"));
}

/// pip comes from this machine, as the wheel that Debian keeps for virtual environments.
pub async fn pip_installs_a_wheel(rig: &Rig) {
    let handle = rig.any_box().await;
    let pip = std::fs::read_dir("/usr/share/python-wheels")
        .expect("Debian's wheels (apt-get install python3-venv)")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pip-")))
        .expect("the wheel of pip");
    put(&handle, "/opt/pip.whl", std::fs::read(pip).expect("read the wheel"), 0o644).await;
    let wheel = r#"
import zipfile
with zipfile.ZipFile("/opt/greeter-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greeter.py", "def main(): print('hello')\n")
    meta = "greeter-1.0.dist-info/"
    wheel.writestr(meta + "METADATA", "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
    wheel.writestr(meta + "WHEEL", "Wheel-Version: 1.0\nGenerator: here\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(meta + "entry_points.txt", "[console_scripts]\ngreet = greeter:main\n")
    wheel.writestr(meta + "RECORD", "")
"#;
    put(&handle, "/opt/wheel.py", wheel, 0o644).await;
    well(&handle, "python3 /opt/wheel.py").await;
    well(&handle, "python3 /opt/pip.whl/pip install --quiet --no-index --break-system-packages --root-user-action ignore --find-links /opt greeter").await;
    assert_eq!(well(&handle, "greet").await, "hello\n");
}

/// git comes from this machine: it needs no more libraries than the base image has.
pub async fn git_clones_a_repository(rig: &Rig) {
    let handle = rig.any_box().await;
    let git = std::fs::read("/usr/bin/git").expect("git (apt-get install git)");
    put(&handle, "/usr/bin/git", git, 0o755).await;
    let script = r#"
set -e
for name in git-upload-pack git-receive-pack; do ln -s git /usr/bin/$name; done
git config --global user.name Ann && git config --global user.email ann@example.invalid
git init --quiet --initial-branch=main /srv/origin
cd /srv/origin && echo content >file && git add file && git commit --quiet --message first
cd /workspace && git clone --quiet file:///srv/origin copy && cat copy/file
cd copy && echo more >>file && git commit --quiet --all --message second && git push --quiet origin HEAD:other
git -C /srv/origin log --format=%s other
"#;
    let said = well(&handle, script).await;
    assert_eq!(said, "content\nsecond\nfirst\n");
}

/// A package with a dependency, from a registry on loopback: what npm asks of one is a document for each name, and tarballs.
pub async fn npm_installs_from_a_loopback_registry(rig: &Rig) {
    let handle = rig.work_box().await;
    let registry = r##"
const http = require("http"), fs = require("fs"), crypto = require("crypto");
const { execFileSync } = require("child_process");
const packages = {
  greeter: { version: "1.0.0", bin: { greet: "greet.js" }, dependencies: { "greeter-words": "^2.0.0" } },
  "greeter-words": { version: "2.1.0", main: "index.js" },
};
const sources = {
  greeter: { "greet.js": "#!/usr/bin/env node\nconsole.log(require('greeter-words'))\n" },
  "greeter-words": { "index.js": "module.exports = 'hello'\n" },
};
const tarballs = {};
for (const [name, manifest] of Object.entries(packages)) {
  const dir = `/srv/${name}/package`;
  fs.mkdirSync(dir, { recursive: true });
  fs.writeFileSync(`${dir}/package.json`, JSON.stringify({ name, ...manifest }));
  for (const [file, text] of Object.entries(sources[name])) fs.writeFileSync(`${dir}/${file}`, text, { mode: 0o755 });
  tarballs[name] = execFileSync("tar", ["-C", `/srv/${name}`, "-cz", "package"]);
}
http.createServer((request, response) => {
  const name = request.url.split("/")[1];
  if (!packages[name]) { response.writeHead(404); return response.end("{}"); }
  if (request.url.endsWith(".tgz")) return response.end(tarballs[name]);
  const { version } = packages[name];
  const integrity = "sha512-" + crypto.createHash("sha512").update(tarballs[name]).digest("base64");
  const dist = { tarball: `http://127.0.0.1:4873/${name}/-/${name}-${version}.tgz`, integrity };
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify({
    name, "dist-tags": { latest: version }, versions: { [version]: { name, ...packages[name], dist } },
  }));
}).listen(4873, "127.0.0.1", () => fs.writeFileSync("/tmp/listens", ""));
"##;
    put(&handle, "/srv/registry.js", registry, 0o644).await;
    let script = r#"
set -e
node /srv/registry.js >/tmp/registry.log 2>&1 &
server=$!
for attempt in $(seq 300); do [ -e /tmp/listens ] && break; sleep 0.1; done
export npm_config_registry=http://127.0.0.1:4873/ npm_config_update_notifier=false npm_config_audit=false npm_config_fund=false
mkdir /workspace/project && cd /workspace/project
npm init --yes >/dev/null
npm install greeter >/tmp/npm.log 2>&1 || { cat /tmp/npm.log /tmp/registry.log; exit 1; }
npx --no-install greet
# For all, as root: npm gives files to whoever owns the directory.
npm install --global greeter >/tmp/npm.log 2>&1 || { cat /tmp/npm.log; exit 1; }
greet
kill $server
"#;
    assert_eq!(well(&handle, script).await, "hello\nhello\n");
}

/// PostgreSQL refuses to run as root: its own user owns its directory, and keeps data over a restart.
pub async fn postgres_runs_as_its_own_user(rig: &Rig) {
    let handle = rig.work_box().await;
    let script = r#"
set -e
export PATH=/usr/lib/postgresql/15/bin:$PATH
install -d -o postgres -g postgres -m 700 /srv/data
install -d -o postgres -g postgres -m 775 /var/run/postgresql
ask() { psql -h 127.0.0.1 -U postgres -At -c "$1"; }
if initdb -D /srv/root >/dev/null 2>&1; then echo "root was let in"; exit 1; fi
su postgres -s /bin/sh -c "PATH=$PATH initdb -D /srv/data --auth=trust --encoding=UTF8 --no-sync" >/tmp/initdb.log 2>&1 || { cat /tmp/initdb.log; exit 1; }
start() { su postgres -s /bin/sh -c "PATH=$PATH pg_ctl -D /srv/data -w -t 120 -o '-c fsync=off' -l /tmp/postgres.log start" >/dev/null || { cat /tmp/postgres.log; exit 1; }; }
stop() { su postgres -s /bin/sh -c "PATH=$PATH pg_ctl -D /srv/data -w -t 120 -m fast stop" >/dev/null; }
start
ask "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n" >/dev/null
stop
start
ask "SELECT sum(n) FROM t"
ps -o user= -p "$(head -n 1 /srv/data/postmaster.pid)"
stat -c %U /srv/data/PG_VERSION
stop
"#;
    assert_eq!(well(&handle, script).await, "500500\npostgres\npostgres\n");
}
