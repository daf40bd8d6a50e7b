//! The packets of esbuild's service: a length, an id, and one value.

use anyhow::{Context, Result, bail};

/// A value of the protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(u32),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

/// A request or its response. Both sides number their own requests.
#[derive(Debug, PartialEq)]
pub struct Packet {
    pub id: u32,
    pub is_request: bool,
    pub value: Value,
}

/// Messages have three levels; deeper values are not esbuild's.
const MAX_DEPTH: usize = 16;

impl Value {
    pub fn map<const N: usize>(entries: [(&str, Value); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|text| Self::Text(text.into())).collect())
    }

    /// The entry of a map. `Null` if there is none.
    pub fn get(&self, key: &str) -> &Value {
        let Self::Map(entries) = self else { return &Self::Null };
        entries.iter().find(|(name, _)| name == key).map_or(&Self::Null, |(_, value)| value)
    }

    /// The text. Empty if this is not a text.
    pub fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }

    /// The bytes. Empty if these are not bytes.
    pub fn bytes(&self) -> &[u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }

    /// The elements. Empty if this is not a list.
    pub fn list(&self) -> &[Value] {
        if let Self::List(list) = self { list } else { &[] }
    }

    pub fn int(&self) -> Option<u32> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0),
            Self::Bool(value) => out.extend([1, u8::from(*value)]),
            Self::Int(value) => {
                out.push(2);
                out.extend(value.to_le_bytes());
            }
            Self::Text(text) => {
                out.push(3);
                encode_bytes(text.as_bytes(), out);
            }
            Self::Bytes(bytes) => {
                out.push(4);
                encode_bytes(bytes, out);
            }
            Self::List(list) => {
                out.push(5);
                out.extend(length(list.len()));
                list.iter().for_each(|value| value.encode(out));
            }
            Self::Map(entries) => {
                out.push(6);
                out.extend(length(entries.len()));
                for (key, value) in entries {
                    encode_bytes(key.as_bytes(), out);
                    value.encode(out);
                }
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(value)
    }
}

impl Packet {
    /// The bytes with their length.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend((self.id << 1 | u32::from(!self.is_request)).to_le_bytes());
        self.value.encode(&mut body);
        let mut out = Vec::with_capacity(body.len() + 4);
        encode_bytes(&body, &mut out);
        out
    }

    /// `body` is a packet without its length.
    pub fn decode(body: &[u8]) -> Result<Self> {
        let mut reader = Reader { rest: body };
        let head = reader.int()?;
        let value = reader.value(0)?;
        if !reader.rest.is_empty() {
            bail!("esbuild sent a packet with {} more bytes than its value", reader.rest.len());
        }
        Ok(Self { id: head >> 1, is_request: head & 1 == 0, value })
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(length(bytes.len()));
    out.extend(bytes);
}

/// Sources are limited to much less than 4 GiB.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).context("esbuild sent a packet that is too short")?;
        self.rest = rest;
        Ok(taken)
    }

    fn int(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.int()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            bail!("esbuild sent a packet that is nested too deeply");
        }
        Ok(match self.take(1)? {
            [0] => Value::Null,
            [1] => Value::Bool(self.take(1)? != [0]),
            [2] => Value::Int(self.int()?),
            [3] => Value::Text(self.text()?),
            [4] => Value::Bytes(self.bytes()?.to_vec()),
            [5] => {
                let length = self.int()?;
                Value::List((0..length).map(|_| self.value(depth + 1)).collect::<Result<_>>()?)
            }
            [6] => {
                let length = self.int()?;
                Value::Map((0..length).map(|_| Ok((self.text()?, self.value(depth + 1)?))).collect::<Result<_>>()?)
            }
            _ => bail!("esbuild sent a packet of an unknown type"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_round_trip() {
        let value = Value::map([
            ("none", Value::Null),
            ("flag", true.into()),
            ("number", 70_000.into()),
            ("text", "Zoë".into()),
            ("bytes", Value::Bytes(vec![0, 255])),
            ("list", Value::List(vec![Value::Int(1), "a".into()])),
            ("map", Value::map([])),
        ]);
        let packet = Packet { id: 7, is_request: true, value };
        let bytes = packet.encode();
        assert_eq!(bytes[..4], u32::try_from(bytes.len() - 4).expect("small").to_le_bytes());
        assert_eq!(Packet::decode(&bytes[4..]).expect("valid"), packet);
    }

    #[test]
    fn invalid_packets_are_errors() {
        let deep = [vec![0; 4], [5, 1, 0, 0, 0].repeat(40), vec![0]].concat();
        let cases: [&[u8]; 7] = [
            &[],
            &[0, 0, 0],
            &[0, 0, 0, 0, 9],
            &[0, 0, 0, 0, 3, 5, 0, 0, 0, b'a'],
            &[0, 0, 0, 0, 5, 255, 255, 255, 255],
            &[0, 0, 0, 0, 0, 0],
            &deep,
        ];
        for bytes in cases {
            assert!(Packet::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
