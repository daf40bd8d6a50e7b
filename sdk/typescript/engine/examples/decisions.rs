use tidegate_js::engine::Engine;
fn main() {
    let engine = Engine::start().unwrap();
    let program = std::fs::read_to_string(std::env::args().nth(1).unwrap()).unwrap();
    println!("{}", engine.build(program, |_| ()).unwrap());
    let decide = || {
        let names: Vec<String> =
            ["host", "cookie", "accept", "user-agent", "accept-language", "accept-encoding", "x-role", "origin"]
                .map(String::from)
                .to_vec();
        let values: Vec<String> = [
            "gate.example",
            "theme=dark; session=s-ada-0123456789",
            "text/event-stream",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126 Safari/537.36",
            "en",
            "gzip",
            "admin",
            "https://app.example",
        ]
        .map(String::from)
        .to_vec();
        let url = "https://gate.example/api/realtime?channel=user.ada&channel=default&channel=team".to_string();
        engine
            .call(
                "authorize",
                ("GET".to_string(), url, names, values, vec!["user.ada".to_string(), "default".into(), "team".into()]),
                |ctx, value| Ok(ctx.json_stringify(value)?.unwrap().to_string()?),
            )
            .unwrap()
    };
    println!("{}", decide());
    let n = 40000;
    let t = std::time::Instant::now();
    for _ in 0..n {
        decide();
    }
    println!("{:?} per decision", t.elapsed() / n);
}
