//! Debian's nginx with the configuration that is deployed, in front of gateways.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    clickhouse::witness::get,
    patience::wait_for,
    server::{self, free_port},
};

/// Whether nginx is installed; if not, says so loudly, and fails where skipping is not allowed.
pub fn have() -> bool {
    // Also where it is, because its directory may not be searched.
    Path::new("/usr/sbin/nginx").exists() || server::have("nginx")
}

/// nginx in front of the gateways at some ports; stopped when dropped.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    /// Where it listens.
    pub base: String,
    /// Where it tells which configuration is in force.
    told_at: String,
    /// How many configurations there were.
    generation: u32,
    dir: tempfile::TempDir,
}

impl Nginx {
    /// Starts it, and returns when it passes on.
    pub fn start(ports: &[u16]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = || format!("http://127.0.0.1:{}", free_port());
        let (base, told_at) = (url(), url());
        write_configuration(dir.path(), &base, &told_at, 0, ports);
        let child = Command::new("nginx")
            .env("PATH", path_with_sbin())
            .arg("-p")
            .arg(dir.path())
            .args(["-c", "nginx.conf", "-e", "error.log", "-g", "daemon off;"])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let nginx = Self { child, base, told_at, generation: 0, dir };
        wait_for("nginx to pass on", || is_ready(&nginx.base));
        nginx
    }

    /// Puts it in front of other gateways without losing a connection, and returns when new requests go there.
    pub fn turn_to(&mut self, ports: &[u16]) {
        self.generation += 1;
        write_configuration(self.dir.path(), &self.base, &self.told_at, self.generation, ports);
        self.signal(Signal::HUP);
        let wanted = self.generation.to_string();
        wait_for("nginx to read its configuration", || {
            get(&self.told_at, "/", &[]).is_ok_and(|(_, _, told)| told == wanted)
        });
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        // It fails only if it is gone already.
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A master that is killed leaves its workers behind.
        self.signal(Signal::TERM);
        let _ = self.child.wait();
    }
}

fn write_configuration(dir: &Path, base: &str, told_at: &str, generation: u32, ports: &[u16]) {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("deployments/nginx/luminate.conf.template");
    let server = |port: &u16| format!("server 127.0.0.1:{port} max_fails=0; ");
    let site = fs::read_to_string(template)
        .unwrap()
        .replace("${LUMINATE_LISTEN}", &base["http://".len()..])
        .replace("${LUMINATE_GATEWAYS}", &ports.iter().map(server).collect::<String>());
    // Started by root, nginx would give its workers a user that may not enter our directory.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {what};"))
        .join("\n");
    let told = format!("server {{ listen {}; return 200 {generation}; }}", &told_at["http://".len()..]);
    let main = format!(
        "{user}\nworker_processes 1;\npid nginx.pid;\nevents {{}}\n\
         http {{\naccess_log off;\n{temp}\n{site}\n{told}\n}}\n"
    );
    fs::write(dir.join("nginx.conf"), main).unwrap();
}

/// Debian has nginx where not everybody looks.
fn path_with_sbin() -> String {
    format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default())
}

fn is_ready(base: &str) -> bool {
    get(base, "/-/ready", &[]).is_ok_and(|(status, ..)| status == 200)
}
