//! What the documents say: the tutorial makes a project that builds, passes its tests and says what it is said to say;
//! the README's programs run and its test passes.

#![forbid(unsafe_code)]
#![cfg(unix)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

use rustix::process::Signal;
use support::markdown::{Block, blocks};
use support::project::{Project, read};
use support::{Ended, Example, WATCHDOG};

/// The address in the documents. The tests take any free port for it.
const ADDRESS: &str = "127.0.0.1:8888";
const FREE: &str = "127.0.0.1:0";

/// Plays what a document shows of a terminal: programs that run, clients that talk to them, and Ctrl-C.
struct Terminal<'a> {
    project: &'a Project,
    server: Option<(Example, String)>,
}

impl Terminal<'_> {
    fn play(&mut self, block: &Block) {
        let mut lines = block.code.lines();
        let command = lines.next().expect("a command");
        let expected: Vec<&str> = lines.collect();
        if let Some(name) = command.strip_prefix("$ cargo run --bin ") {
            self.run(name, &expected);
        } else if command == format!("$ nc {}", ADDRESS.replace(':', " ")) {
            self.talk(&expected);
        } else if command == "^C" {
            self.interrupt(&expected, 0);
        } else {
            panic!("it is not known how to play {command:?}");
        }
    }

    fn run(&mut self, name: &str, expected: &[&str]) {
        self.end();
        let example = Example::spawn(&mut Command::new(self.project.program(name)));
        if !expected.iter().any(|line| line.starts_with("listening on ")) {
            let Ended { status, stdout, stderr } = example.end();
            assert!(status.success(), "{name}: {status}, {stderr:?}");
            assert_eq!(stdout, expected, "{name}");
            return;
        }
        let mut address = String::new();
        for line in expected {
            let found = example.line();
            match found.strip_prefix("listening on ") {
                Some(real) => {
                    assert_eq!(*line, format!("listening on {ADDRESS}"));
                    real.clone_into(&mut address);
                }
                None => assert_eq!(found, *line, "{name}"),
            }
        }
        self.server = Some((example, address));
    }

    /// The lines are a question, its answer, a question …
    fn talk(&self, lines: &[&str]) {
        let (_, address) = self.server.as_ref().expect("a server runs");
        let client = TcpStream::connect(address).expect("it listens");
        client.set_read_timeout(Some(WATCHDOG)).expect("a socket takes a timeout");
        let mut answers = BufReader::new(&client);
        for pair in lines.chunks(2) {
            let [question, answer] = pair else { panic!("a question without an answer: {pair:?}") };
            writeln!(&client, "{question}").expect("the server reads");
            let mut line = String::new();
            answers.read_line(&mut line).expect("an answer");
            assert_eq!(line.trim_end(), *answer);
        }
    }

    fn interrupt(&mut self, expected: &[&str], status: i32) {
        let (example, _) = self.server.take().expect("a server runs");
        example.signal(Signal::INT);
        let ended = example.end();
        assert_eq!(ended.status.code(), Some(status), "{:?}", ended.stderr);
        assert_eq!(ended.stdout, expected);
    }

    /// Ctrl-C, of which the document does not speak.
    fn end(&mut self) {
        if self.server.is_some() {
            self.interrupt(&[], 130);
        }
    }
}

#[test]
fn the_tutorial_builds_the_line_server_and_its_test_and_says_what_it_shows() {
    let blocks = blocks(&read("docs/tutorial.md"));
    let project = Project::new("tutorial");
    for block in &blocks {
        match (block.file(), block.language.as_str()) {
            (Some("Cargo.toml"), _) => project.add_manifest(&block.code),
            (Some(file), "rust") => project.add(file, &block.code.replace(ADDRESS, FREE)),
            (None, "sh" | "console") => {}
            _ => panic!("a block of the tutorial that nothing is done with:\n{}", block.code),
        }
    }
    let report = project.cargo(&["test"]);
    for test in [
        "a_line_may_come_byte_by_byte ... ok",
        "a_line_that_is_too_long_ends_the_connection ... ok",
        "each_client_gets_its_own_lines_and_all_are_counted ... ok",
        "a_silent_client_is_told_so_after_a_minute ... ok",
    ] {
        assert!(report.contains(test), "{test}: {report}");
    }
    assert!(!report.contains("warning"), "it builds without a warning: {report}");
    let mut terminal = Terminal { project: &project, server: None };
    blocks
        .iter()
        .filter(|block| block.language == "console")
        .for_each(|block| terminal.play(block));
    terminal.end();
}

const README_MANIFEST: &str = r#"[package]
name = "readme"
version = "0.1.0"
edition = "2024"

[dependencies]
tulipa = { path = "../tulipa/crates/tulipa", features = ["signal", "testing"] }
"#;

#[test]
fn the_readmes_servers_echo_and_its_test_passes() {
    let blocks = blocks(&read("README.md"));
    let rust = |block: &&Block| block.language.starts_with("rust");
    let code: Vec<_> =
        blocks.iter().filter(rust).map(|block| block.code.replace(ADDRESS, FREE)).collect();
    let [protocol, streams, test] = &code[..] else { panic!("{} blocks of Rust", code.len()) };
    let project = Project::new("readme");
    project.add_manifest(README_MANIFEST);
    project.add("src/bin/readme_protocol.rs", protocol);
    project.add("src/bin/readme_streams.rs", streams);
    // The test is one of the first program, in a module below it as it would be there.
    project.add("src/bin/readme_tested.rs", protocol);
    project.add(
        "src/bin/readme_tested.rs",
        &format!("#[cfg(test)]\nmod tests {{\nuse super::Echo;\n{test}}}\n"),
    );
    project.cargo(&["build"]);
    let report = project.cargo(&["test"]);
    assert!(report.contains("what_is_sent_comes_back_after_a_round_trip ... ok"), "{report}");
    assert!(!report.contains("warning"), "it builds without a warning: {report}");
    let mut terminal = Terminal { project: &project, server: None };
    let listening = format!("listening on {ADDRESS}");
    for name in ["readme_protocol", "readme_streams"] {
        terminal.run(name, &[&listening]);
        terminal.talk(&["hello", "hello", "again", "again"]);
    }
    terminal.end();
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn the_book_lists_every_document_and_is_built_where_mdbook_is() {
    let summary = read("docs/SUMMARY.md");
    let directory = support::project::clone().join("docs");
    for entry in std::fs::read_dir(&directory).expect("there are documents") {
        let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
        if name.ends_with(".md") && name != "SUMMARY.md" {
            assert!(summary.contains(&format!("({name})")), "docs/SUMMARY.md does not list {name}");
        }
    }
    let book = support::Directory::new();
    let built = Command::new("mdbook")
        .arg("build")
        .arg(&directory)
        .arg("-d")
        .arg(book.file("book"))
        .output();
    match built {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr))
        }
        Err(_) => eprintln!("SKIPPED: building the book, as there is no mdbook"),
    }
}

/// Links to files, from the root or from `docs/`: `[text](path)`, without those to the web and within a page.
fn links(document: &str) -> Vec<&str> {
    let targets = document.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !file.contains("://") && !file.contains(' ')).collect()
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let root = support::project::clone();
    let mut documents = vec![root.join("README.md"), root.join("examples/README.md")];
    let docs = std::fs::read_dir(root.join("docs")).expect("there are documents");
    documents.extend(docs.map(|entry| entry.expect("an entry").path()));
    documents.retain(|path| path.extension().is_some_and(|end| end == "md"));
    for document in documents {
        let text = std::fs::read_to_string(&document).expect("it is text");
        let directory = document.parent().expect("it is in one");
        for link in links(&text) {
            assert!(directory.join(link).exists(), "{}: there is no {link}", document.display());
        }
    }
}

/// The values of a key of the manifest's examples, in order.
fn values<'a>(manifest: &'a str, key: &str) -> Vec<&'a str> {
    let examples = manifest.split("[[example]]").skip(1);
    let value = |entry: &'a str| {
        let line = entry.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
        line.and_then(|rest| rest.strip_suffix('"')).unwrap_or_else(|| panic!("no {key}: {entry}"))
    };
    examples.map(value).collect()
}

/// The files that are examples: `NAME.rs` and `NAME/main.rs`.
fn example_files() -> Vec<String> {
    let directory = support::project::clone().join("examples");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&directory).expect("it is there") {
        let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
        if name.ends_with(".rs") {
            files.push(name);
        } else if directory.join(&name).join("main.rs").exists() {
            files.push(format!("{name}/main.rs"));
        }
    }
    files.sort();
    files
}

#[test]
fn every_example_is_in_the_list_and_is_run_by_a_test() {
    let manifest = read("examples/Cargo.toml");
    let (names, mut paths) = (values(&manifest, "name"), values(&manifest, "path"));
    let list = read("examples/README.md");
    let directory = support::project::clone().join("examples/tests");
    let mut tests = String::new();
    for entry in std::fs::read_dir(directory).expect("there are tests") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "rs") {
            tests += &std::fs::read_to_string(path).expect("it is text");
        }
    }
    let mut problems = Vec::new();
    for (name, path) in names.iter().zip(&paths) {
        if !list.contains(&format!("| [`{name}`]({path}) | ")) {
            problems.push(format!("examples/README.md does not list {name}"));
        }
        if !list.contains(&format!("--example {name}")) {
            problems.push(format!("examples/README.md does not say how to run {name}"));
        }
        if !tests.contains(&format!("\"{name}\"")) {
            problems.push(format!("no test runs {name}"));
        }
    }
    let listed = list.lines().filter(|line| line.starts_with("| [`")).count();
    if listed != names.len() {
        problems.push(format!("examples/README.md has {listed} rows for {} examples", names.len()));
    }
    assert!(problems.is_empty(), "{problems:#?}");
    paths.sort_unstable();
    assert_eq!(paths, example_files(), "examples/Cargo.toml, and the files");
}
