use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const ALL: ReadLimits = ReadLimits { entries: 1000, bytes: 1 << 20, max_event: 1 << 20 };

struct TestStore {
    store: MemoryStore,
    now: Arc<AtomicU64>,
}

fn test_store(limit: usize) -> TestStore {
    let now = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&now);
    let seed = HashMap::from([
        ("session:a".to_owned(), Seed::Text("x".into())),
        ("team".to_owned(), Seed::Set(HashSet::from(["alice".to_owned()]))),
        ("h".to_owned(), Seed::Hash(BTreeMap::from([("f".to_owned(), "v".to_owned())]))),
    ]);
    TestStore { store: MemoryStore::new(limit, seed, Arc::new(move || clock.load(Ordering::Relaxed))), now }
}

impl TestStore {
    async fn emit(&self, data: &str, retention: Retention) -> StreamId {
        self.store.emit("c", &NewEvent::new("e", &data.into()), retention).await.expect("emitted")
    }

    async fn ids(&self) -> Vec<String> {
        let page = self.store.read("c", ReadRequest::with_state(StreamId::ZERO), ALL).await.expect("read");
        page.entries.iter().map(|(id, _)| id.to_string()).collect()
    }
}

#[tokio::test]
async fn ids_grow_even_when_the_clock_does_not() {
    let w = test_store(1 << 20);
    assert_eq!(w.emit("a", Retention::default()).await, StreamId::new(1_000, 0));
    assert_eq!(w.emit("b", Retention::default()).await, StreamId::new(1_000, 1));
    w.now.store(500, Ordering::Relaxed);
    assert_eq!(w.emit("c", Retention::default()).await, StreamId::new(1_000, 2));
    w.now.store(2_000, Ordering::Relaxed);
    assert_eq!(w.emit("d", Retention::default()).await, StreamId::new(2_000, 0));
}

#[tokio::test]
async fn trimming_does_not_change_the_number_of_added_entries() {
    let w = test_store(1 << 20);
    for _ in 0..5 {
        w.emit("x", Retention { max_length: Some(2), ..Retention::default() }).await;
    }
    let page = w.store.read("c", ReadRequest::with_state(StreamId::ZERO), ALL).await.expect("read");
    let state = page.stream.expect("a stream");
    assert_eq!((state.added, state.length, state.first), (5, 2, Some(StreamId::new(1_000, 3))));
    assert_eq!(w.ids().await, ["1000-3", "1000-4"]);
}

#[tokio::test]
async fn a_stream_expires() {
    let w = test_store(1 << 20);
    w.emit("x", Retention { expire_seconds: Some(1), ..Retention::default() }).await;
    w.now.store(1_999, Ordering::Relaxed);
    assert_eq!(w.ids().await.len(), 1);
    w.now.store(2_000, Ordering::Relaxed);
    assert!(w.store.read("c", ReadRequest::with_state(StreamId::ZERO), ALL).await.expect("read").stream.is_none());
    assert_eq!(w.store.state().bytes, 0);
}

#[tokio::test]
async fn a_full_store_drops_the_oldest_of_all_streams() {
    let w = test_store(2_000);
    for i in 0..50 {
        w.now.store(1_000 + i, Ordering::Relaxed);
        let channel = if i % 2 == 0 { "c" } else { "d" };
        w.store.emit(channel, &NewEvent::new("e", &"x".into()), Retention::default()).await.expect("emitted");
        let state = w.store.state();
        assert!(state.bytes <= 2_000, "{}", state.bytes);
    }
    let page = w.store.read("d", ReadRequest::with_state(StreamId::ZERO), ALL).await.expect("read");
    assert_eq!(page.entries.last().map(|(id, _)| id.ms), Some(1_049));
    let too_large = NewEvent::new("e", &"x".repeat(3_000).into());
    assert!(matches!(w.store.emit("c", &too_large, Retention::default()).await, Err(StoreError::InvalidCommand(_))));
    assert_eq!(w.ids().await.last().map(String::as_str), Some("1048-0"), "a refused entry evicts nothing");
}

#[tokio::test]
async fn a_page_is_bounded() {
    let w = test_store(1 << 20);
    for size in [10, 10, 5_000, 20_000] {
        w.emit(&"x".repeat(size), Retention::default()).await;
    }
    let limits = ReadLimits { entries: 10, bytes: 1_000, max_event: 10_000 };
    let page = w.store.read("c", ReadRequest::with_state(StreamId::ZERO), limits).await.expect("read");
    assert_eq!((page.entries.len(), page.complete, page.needs), (2, false, None));
    let page = w.store.read("c", ReadRequest::with_state(page.entries[1].0), limits).await.expect("read");
    let needs = page.needs.expect("a larger limit is needed");
    assert!(page.entries.is_empty() && needs > 5_000);
    let after = ReadRequest::with_state(StreamId::new(1_000, 1));
    let page = w.store.read("c", after, ReadLimits { bytes: needs, ..limits }).await.expect("read");
    assert_eq!(page.entries.len(), 2);
    assert!(page.complete && matches!(page.entries[1].1, Body::TooLarge));
}

#[tokio::test]
async fn look_ups_read_the_seed() {
    let w = test_store(1 << 20);
    assert_eq!(w.store.get("session:a").await.expect("a reply"), Some(b"x".to_vec()));
    assert_eq!(w.store.get("session:b").await.expect("a reply"), None);
    assert!(w.store.set_contains("team", "alice").await.expect("a reply"));
    assert!(!w.store.set_contains("team", "bob").await.expect("a reply"));
    assert_eq!(w.store.hash_get("h", "f").await.expect("a reply"), Some(b"v".to_vec()));
    assert!(matches!(w.store.get("team").await, Err(StoreError::WrongType)));
    assert!(matches!(
        w.store.read("team", ReadRequest::with_state(StreamId::ZERO), ALL).await,
        Err(StoreError::WrongType)
    ));
}

#[tokio::test]
async fn commands_reply_as_redis_does() {
    let w = test_store(1 << 20);
    let run = async |json: serde_json::Value| {
        w.store.command(&RestCommand::parse(&json.to_string()).expect("a command")).await
    };
    let text = |s: &str| Reply::Text(s.as_bytes().to_vec());
    use serde_json::json;
    assert_eq!(run(json!(["XADD", "c", "NOMKSTREAM", "*", "a", "b"])).await.expect("a reply"), Reply::Nil);
    assert_eq!(run(json!(["XADD", "c", "5-1", "a", "b"])).await.expect("a reply"), text("5-1"));
    assert!(matches!(run(json!(["XADD", "c", "5-1", "a", "b"])).await, Err(StoreError::InvalidCommand(_))));
    assert_eq!(run(json!(["XADD", "c", "MAXLEN", 1, "5-*", "a", "c"])).await.expect("a reply"), text("5-2"));
    let row = Reply::List(vec![text("5-2"), Reply::List(vec![text("a"), text("c")])]);
    assert_eq!(run(json!(["XRANGE", "c", "-", "+"])).await.expect("a reply"), Reply::List(vec![row]));
    assert_eq!(run(json!(["XRANGE", "c", "(5-2", "+"])).await.expect("a reply"), Reply::List(vec![]));
    assert_eq!(run(json!(["EXPIRE", "nothing", 5])).await.expect("a reply"), Reply::Int(0));
    assert_eq!(run(json!(["EXPIRE", "c", 0])).await.expect("a reply"), Reply::Int(1));
    assert_eq!(run(json!(["XRANGE", "c", "-", "+"])).await.expect("a reply"), Reply::List(vec![]));
    assert!(matches!(run(json!(["XADD", "team", "*", "a", "b"])).await, Err(StoreError::WrongType)));
}
