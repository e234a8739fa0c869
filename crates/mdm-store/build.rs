//! A new migration is compiled in: cargo has to be told that the folder matters.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
