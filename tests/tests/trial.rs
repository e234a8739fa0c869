//! `mdm-api try`: what a newcomer sees first.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use rustix::process::Signal;

use crate::processes::{bare, signal};

#[tokio::test]
async fn one_command_shows_a_newcomer_the_main_job() {
    let directory = mdm_testkit::postgres::temp_directory().unwrap();
    // Twice: the second time the machine is known and the database is there.
    for _ in 0..2 {
        let mut command = bare("mdm-api");
        command
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args(["--listen", "127.0.0.1:0", "try"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let machine = rustix::system::uname();
        let kernel = format!("kernel {}", machine.release().to_str().unwrap());
        let (mut answered, mut seen) = (false, Vec::new());
        for line in BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
        {
            answered |= line.contains("system_info is completed") && line.contains(&kernel);
            seen.push(line);
            let all = seen.join("\n");
            let told = [
                "\"new_status\":\"online\"",
                "\"status\":\"sent\"",
                "\"status\":\"completed\"",
            ];
            if answered && told.iter().all(|event| all.contains(event)) {
                break;
            }
        }
        assert!(answered, "{seen:#?}");
        signal(&child, Signal::INT);
        assert!(child.wait().unwrap().success());
    }
}
