//! Parses an event stream as the HTML standard requires of browsers.

/// The rest of a longer line is dropped: no gateway sends one.
const MAX_LINE_BYTES: usize = 512 << 20;

/// The parser's state between two chunks.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    is_after_cr: bool,
    data: Option<String>,
    id: Option<String>,
    /// The id of the last complete event, for `Last-Event-ID`.
    pub last_id: Option<String>,
    /// The pause before reconnecting, in ms.
    pub retry: Option<u64>,
}

impl Parser {
    /// Drops an event that the lost connection left incomplete.
    pub fn reconnect(&mut self) {
        *self = Self { last_id: self.last_id.take(), retry: self.retry, ..Self::default() };
    }

    /// Parses a chunk and passes the data of each completed event to `on_event`: its `data:` lines, joined by newlines.
    pub fn push(&mut self, chunk: &[u8], mut on_event: impl FnMut(String)) {
        for &byte in chunk {
            let is_after_cr = std::mem::replace(&mut self.is_after_cr, byte == b'\r');
            match byte {
                // The end of a line was its CR.
                b'\n' if is_after_cr => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    self.line(&String::from_utf8_lossy(&line)).into_iter().for_each(&mut on_event);
                }
                _ if self.line.len() < MAX_LINE_BYTES => self.line.push(byte),
                _ => {}
            }
        }
    }

    fn line(&mut self, line: &str) -> Option<String> {
        if line.is_empty() {
            self.last_id = self.id.take().or(self.last_id.take());
            return self.data.take();
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => match &mut self.data {
                Some(data) => data.extend(["\n", value]),
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" => self.retry = crate::event::digits(value).or(self.retry),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_parsed_whatever_the_chunk_size() {
        let text = b"retry: 5\nid: 1\ndata: a\n\n: comment\ndata:b\r\ndata: c\r\n\r\nid: 2\n\nid: 3\ndata: cut";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for chunk in text.chunks(size) {
                parser.push(chunk, |data| events.push(data));
            }
            assert_eq!(events, ["a", "b\nc"], "in chunks of {size}");
            assert_eq!((parser.last_id.as_deref(), parser.retry), (Some("2"), Some(5)));
            parser.reconnect();
            parser.push(b"\n\n", |data| panic!("nothing is left of {data:?}"));
            assert_eq!(parser.last_id.as_deref(), Some("2"), "an id counts with its whole event");
        }
    }
}
