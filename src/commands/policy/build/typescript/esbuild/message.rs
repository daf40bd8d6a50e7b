//! Errors and warnings of esbuild.

use super::packet::Value;

/// An error, a warning, or a note of one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub text: String,
    pub location: Option<Location>,
    pub notes: Vec<Message>,
}

/// A line of a source.
#[derive(Debug, PartialEq, Eq)]
pub struct Location {
    /// Relative to the folder of the build.
    pub file: String,
    /// From 1.
    pub line: u32,
}

impl Message {
    pub(super) fn list(value: &Value) -> Vec<Self> {
        value.list().iter().map(Self::new).collect()
    }

    fn new(value: &Value) -> Self {
        let location = value.get("location");
        Self {
            text: value.get("text").text().to_owned(),
            location: location
                .get("line")
                .int()
                .map(|line| Location { file: location.get("file").text().to_owned(), line }),
            notes: Self::list(value.get("notes")),
        }
    }

    /// The message as lines of this kind, with `name` for the name of a file.
    pub fn format(&self, kind: &str, name: &dyn Fn(&str) -> String) -> String {
        let place = |location: &Option<Location>| {
            location.as_ref().map_or_else(String::new, |at| format!("{}:{}: ", name(&at.file), at.line))
        };
        // esbuild advises its own options, which the build does not have.
        let notes =
            self.notes.iter().filter(|note| !note.text.contains(" as external ") && !note.text.contains("\"esbuild\""));
        let notes = notes.map(|note| format!("\n  {}{}", place(&note.location), note.text));
        format!("{}{kind}: {}{}", place(&self.location), self.text, notes.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_file_line_and_notes() {
        let note = |text: &str| Value::map([("text", text.into()), ("location", Value::Null)]);
        let location = Value::map([("file", "lib/a.ts".into()), ("line", 3.into())]);
        let notes = Value::List(vec![note("You can mark the path \"b\" as external to exclude it"), note("Use it.")]);
        let value = Value::map([("text", "Could not resolve \"b\"".into()), ("location", location), ("notes", notes)]);
        let [message] = &Message::list(&Value::List(vec![value]))[..] else { panic!("one message") };
        let text = message.format("error", &|file| format!("app/{file}"));
        assert_eq!(text, "app/lib/a.ts:3: error: Could not resolve \"b\"\n  Use it.");
    }
}
