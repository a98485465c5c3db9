//! `cargo bench -p tulipa-benches -- --quick`: see the crate's documentation.

fn main() {
    #[cfg(target_os = "linux")]
    tulipa_benches::main();
}
