//! `luminate admin`: what it says of servers that are well, wrong, slow, or no servers of that kind at all.

mod canary;
mod capacity;
mod check;
mod smoke;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use crate::{patience::wait_for_end, server::luminate};

/// What a command ended with.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

/// Runs a command, which has a minute.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut child = start(arguments, environment);
    let out = read_all(child.stdout.take().unwrap());
    let err = read_all(child.stderr.take().unwrap());
    let code = wait_for_end("luminate", &mut child).code().unwrap();
    Ended { code, out: out.join().unwrap(), err: err.join().unwrap() }
}

fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Child {
    let mut command = luminate();
    command.args(arguments).envs(environment.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    })
}

/// Something that listens, says the same to everybody, and is no server of ours; it ends with the test.
struct Liar {
    port: u16,
}

impl Liar {
    /// Reads a little and says `answer`; if that is nothing, says nothing and keeps the connection.
    fn saying(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut silent = Vec::new();
            for mut stream in listener.incoming().flatten() {
                if answer.is_empty() {
                    silent.push(stream);
                } else {
                    thread::spawn(move || answer_once(&mut stream, answer));
                }
            }
        });
        Self { port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn answer_once(stream: &mut TcpStream, answer: &str) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 4096];
    // Whoever breaks off has had enough.
    let _ = stream.read(&mut buffer);
    let _ = stream.write_all(answer.as_bytes());
}
