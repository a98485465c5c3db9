//! The attributes without the facade: crates that `tulipa` depends on write their tests like this.

use std::time::Duration;

use tulipa_macros::test;

#[test(crate = tulipa_testing, clock = "autojump", strict)]
async fn the_path_to_the_library_may_be_the_test_kit_alone() {
    let minute = Duration::from_secs(60);
    tulipa::sleep(minute).await;
    assert_eq!(tulipa_testing::elapsed(), minute);
}
