//! A project of a reader, made of what a document says, outside of the workspace.
#![allow(dead_code)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where documents say that this repository is, as seen from the project.
const CLONE: &str = "../tulipa";

#[derive(Debug)]
pub(crate) struct Project {
    root: PathBuf,
}

impl Project {
    /// An empty one, built with the versions of this workspace's lock file.
    pub(crate) fn new(name: &str) -> Project {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _not_there = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("Cargo made the directory above");
        fs::copy(clone().join("Cargo.lock"), root.join("Cargo.lock"))
            .expect("the workspace has one");
        Project { root }
    }

    /// Adds to the end of a file.
    pub(crate) fn add(&self, file: &str, text: &str) {
        let path = self.root.join(file);
        fs::create_dir_all(path.parent().expect("it is in the project")).expect("a directory");
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
        file.write_all(text.as_bytes()).expect("it is written");
    }

    /// Adds the manifest, with the way to this repository.
    pub(crate) fn add_manifest(&self, text: &str) {
        let here = clone().to_str().expect("the path is text").to_owned();
        assert!(text.contains(CLONE), "it says where the repository is: {text}");
        self.add("Cargo.toml", &text.replace(CLONE, &here));
        // It is below the workspace and no part of it.
        self.add("Cargo.toml", "\n[workspace]\n");
    }

    /// Runs Cargo in it, without the network; fails if that does. Gives what it wrote.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> String {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(arguments)
            .arg("--offline")
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", target())
            // As much as a workspace does, so that it is built faster.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env_remove("RUSTFLAGS")
            .output()
            .expect("Cargo runs this test too");
        let text =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(
            output.status.success(),
            "{arguments:?} in {}:\n{}",
            self.root.display(),
            text.concat()
        );
        text.concat()
    }

    /// A program that was built.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        target().join("debug").join(name)
    }
}

/// One for all such projects, which have their dependencies in common.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("documents")
}

/// The root of this repository.
pub(crate) fn clone() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the examples are in the repository")
}

pub(crate) fn read(document: &str) -> String {
    let path = clone().join(document);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
