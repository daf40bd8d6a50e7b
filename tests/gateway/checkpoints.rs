//! Policies that save the state of a prepared instance, which other instances then get.

use tidegate::authz::authorizer::Authorizer;
use tidegate::policy::{Failure, Limits, Outcome};

use crate::evaluation_permits::{generous_limits, new_authorizer, request};
use crate::guests::authorizer;
use crate::harness::{Gateway, with_timeout};
use crate::sandbox_limits::REALLOC;

/// `some` of a list with one element, which begins with `s`.
const STATE: &str = "(i32.const 256)";
const NO_STATE: &str = "(i32.const 288)";
/// Takes the first byte of the list.
const RESTORE: &str = "(i32.store8 (i32.const 8) (i32.load8_u (local.get 0)))";

/// A policy that rejects all requests with its state, a letter: `f` in a new instance, `p` after `prepare`, `s` if it is that of `save`.
fn policy(save: &str, restore: &str) -> Vec<u8> {
    authorizer(&format!(
        r#"(module
          (memory (export "memory") 17)
          (data (i32.const 8) "f")
          (data (i32.const 16) "s")
          ;; err, and the rejection: status, headers, body
          (data (i32.const 128) (i32 1 0) (i32 418) (i32 0 0) (i32 8 1))
          (data (i32.const 256) (i32 1 16 1))
          (data (i32.const 288) (i32 0 0 0))
          ;; a list that is longer than a state may be
          (data (i32.const 320) (i32 1 16 131073))
          {REALLOC}
          (func (export "tidegate:policy/preparation@0.1.0#prepare") (i32.store8 (i32.const 8) (i32.const 112)))
          (func (export "tidegate:policy/checkpoint@0.1.0#save") (result i32) {save})
          (func (export "tidegate:policy/checkpoint@0.1.0#restore") (param i32 i32) {restore})
          (func (export "tidegate:policy/authorizer@0.1.0#authorize")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (i32.const 128)))"#
    ))
}

/// An authorizer that prepares nothing by itself.
fn idle(policy: &[u8]) -> Authorizer {
    new_authorizer(policy, Limits { prewarmed_instances: 0, ..generous_limits() })
}

/// The state of the instance that decides next.
async fn state(authorizer: &Authorizer) -> String {
    match authorizer.evaluate(&request(), &["c".to_owned()]).await.outcome {
        Outcome::Rejected(rejection) => String::from_utf8_lossy(&rejection.body).into_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn instances_get_the_saved_state() {
    let authorizer = idle(&policy(STATE, RESTORE));
    assert_eq!(state(&authorizer).await, "f");
    authorizer.save_checkpoint().await.expect("saved");
    for _ in 0..3 {
        assert_eq!(state(&authorizer).await, "s");
    }
    authorizer.prewarm_one().await.expect("prewarmed");
    assert_eq!(state(&authorizer).await, "s");
}

#[tokio::test]
async fn each_instance_is_prepared_if_the_policy_saves_no_state() {
    let authorizer = idle(&policy(NO_STATE, RESTORE));
    authorizer.save_checkpoint().await.expect("nothing to save");
    authorizer.prewarm_one().await.expect("prewarmed");
    assert_eq!(state(&authorizer).await, "p");
    assert_eq!(state(&authorizer).await, "f");
}

#[tokio::test]
async fn state_that_is_invalid_or_cannot_be_restored_is_not_used() {
    const TOO_LONG: &str = "(i32.const 320)";
    const TRAP: &str = "(unreachable)";
    const OUT_OF_MEMORY: &str = "(i32.store (i32.const 256) (i32.const 7)) (i32.const 256)";
    for (save, restore) in [(TRAP, RESTORE), (TOO_LONG, RESTORE), (OUT_OF_MEMORY, RESTORE), (STATE, TRAP)] {
        let authorizer = idle(&policy(save, restore));
        let saved = authorizer.save_checkpoint().await;
        assert!(matches!(saved, Err(Failure::Trap(_))), "{save} {restore}: {saved:?}");
        authorizer.prewarm_one().await.expect("prewarmed");
        assert_eq!(state(&authorizer).await, "p", "{save} {restore}");
        assert_eq!(state(&authorizer).await, "f", "{save} {restore}");
    }
}

#[tokio::test]
async fn state_belongs_to_the_activation_that_saved_it() {
    let gateway = Gateway::with_policy(&policy(STATE, RESTORE), "[policy]\nprewarmed-instances = 1\n").await;
    let is = async |letter: &str| gateway.request("channel=c").await.body == letter;
    let saved = async {
        while !is("s").await {
            tokio::task::yield_now().await;
        }
    };
    with_timeout("an instance has the saved state", saved).await;
    // Of the next policy no instance has the state, although its component is nearly the same.
    gateway.activate(&policy(NO_STATE, RESTORE)).await.expect("activated");
    for _ in 0..20 {
        assert!(!is("s").await);
    }
}
