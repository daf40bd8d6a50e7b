//! Bytecode without what only `eval` and messages of errors need.
//!
//! QuickJS keeps 20 bytes for each argument and variable of a function, with its name as text. A running function needs them only for
//! variables that closures capture, and without names. The serialized form is that of `JS_WriteObject` in QuickJS-ng 0.14.

use std::mem::take;

/// The version of the serialized form.
const VERSION: u8 = 28;
/// A checksum that is not checked.
const ANY_CHECKSUM: [u8; 4] = [0xff; 4];
/// No name.
const NO_ATOM: u32 = 0;

/// Tags of values in a table of constants.
const NULL: u8 = 1;
const TRUE: u8 = 4;
const INT32: u8 = 5;
const FLOAT64: u8 = 6;
const STRING: u8 = 7;
const ARRAY: u8 = 9;
const BIG_INT: u8 = 10;
const TEMPLATE: u8 = 11;
const FUNCTION: u8 = 12;

/// The bits of a variable: its kind, `const`, lexical, and whether a closure captures it.
const IS_CAPTURED: u8 = 1 << 6;
/// The bit of a function that tells whether its file and lines follow.
const HAS_LINES: u16 = 1 << 11;

/// Removes variables, and the positions of lines, of functions that use no `eval`. `None` if the bytecode has another form than that of this
/// version.
pub fn slim(bytecode: &[u8]) -> Option<Vec<u8>> {
    let mut slim = Slim { rest: bytecode, out: Vec::with_capacity(bytecode.len()) };
    if slim.byte()? != VERSION {
        return None;
    }
    slim.skip(ANY_CHECKSUM.len())?;
    slim.out.extend(ANY_CHECKSUM);
    for _ in 0..slim.number()? {
        // A name of QuickJS, or a text.
        match slim.byte()? {
            kind if kind & 0xc0 == 0xc0 => drop(slim.number()?),
            kind if kind & 0x80 != 0 => {}
            _ => slim.string()?,
        }
    }
    slim.value()?;
    slim.rest.is_empty().then_some(slim.out)
}

/// The bytecode that was not read, and the written one.
struct Slim<'a> {
    rest: &'a [u8],
    out: Vec<u8>,
}

impl Slim<'_> {
    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    fn copy(&mut self, bytes: usize) -> Option<()> {
        self.out.extend_from_slice(self.rest.get(..bytes)?);
        self.skip(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.copy(1)?;
        self.out.last().copied()
    }

    fn read_byte(&mut self) -> Option<u8> {
        let byte = *self.rest.first()?;
        self.skip(1)?;
        Some(byte)
    }

    /// Seven bits in each byte, the lowest first.
    fn read_number(&mut self) -> Option<u32> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.read_byte()?;
            number |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn write_number(&mut self, mut number: u32) {
        while number >= 0x80 {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    fn number(&mut self) -> Option<u32> {
        let number = self.read_number()?;
        self.write_number(number);
        Some(number)
    }

    fn string(&mut self) -> Option<()> {
        let length = self.number()?;
        self.copy((length as usize >> 1) << (length & 1))
    }

    fn value(&mut self) -> Option<()> {
        match self.byte()? {
            NULL..=TRUE => {}
            // Its bytes are those of a number, but their meaning has a sign.
            INT32 => while self.byte()? & 0x80 != 0 {},
            FLOAT64 => self.copy(8)?,
            STRING => self.string()?,
            BIG_INT => {
                let length = self.number()?;
                self.copy(length as usize)?;
            }
            kind @ (ARRAY | TEMPLATE) => {
                let length = self.number()?;
                for _ in 0..length + u32::from(kind == TEMPLATE) {
                    self.value()?;
                }
            }
            FUNCTION => self.function()?,
            _ => return None,
        }
        Some(())
    }

    fn function(&mut self) -> Option<()> {
        let flags = u16::from_le_bytes([self.byte()?, self.byte()?]);
        let is_strict = self.byte()? != 0;
        let _name = self.number()?;
        let arguments = self.number()?;
        let [_variables, _defined, _stack, _captured] =
            [self.number()?, self.number()?, self.number()?, self.number()?];
        let closure = self.number()?;
        let constants = self.number()?;
        let code = self.number()?;
        self.variables(is_strict || arguments == 0)?;
        for _ in 0..closure {
            self.read_number()?;
            self.write_number(NO_ATOM);
            self.number()?;
            self.number()?;
        }
        for _ in 0..constants {
            self.value()?;
        }
        self.copy(code as usize)?;
        if flags & HAS_LINES != 0 {
            let [_file, _line, _column] = [self.number()?, self.number()?, self.number()?];
            let lines = self.read_number()?;
            self.write_number(0);
            self.skip(lines as usize)?;
            let source = self.number()?;
            self.copy(source as usize)?;
        }
        Some(())
    }

    /// The arguments and variables. In a function that is not strict, an `arguments` object may refer to arguments.
    fn variables(&mut self, is_strict: bool) -> Option<()> {
        let before = take(&mut self.out);
        let count = self.read_number()?;
        let mut is_needed = !is_strict;
        self.write_number(count);
        for _ in 0..count {
            self.read_number()?;
            self.write_number(NO_ATOM);
            let [_scope, _next] = [self.number()?, self.number()?];
            if self.byte()? & IS_CAPTURED != 0 {
                is_needed = true;
                self.number()?;
            }
        }
        let variables = std::mem::replace(&mut self.out, before);
        match is_needed {
            true => self.out.extend(variables),
            false => self.write_number(0),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use rquickjs::{Coerced, Context, FromJs, Runtime, Value};

    use super::*;
    use crate::compiler::{Detail, compile};
    use crate::script;

    /// Code with all kinds of functions, variables and constants.
    const CODE: &str = "(function (list) {
        let captured = 0, big = 12345678901234567890n, text = 'grün 🦀';
        const local = -70000, half = 0.5;
        class Base { #secret = 1; get secret() { return this.#secret; } static { Base.made = true; } }
        class Derived extends Base { constructor(...rest) { super(); this.rest = rest; } }
        function* count(to) { for (let n = 0; n < to; n++) yield () => n + captured; }
        const tag = (parts, ...values) => parts.raw.join('|') + values;
        const mapped = new Function('a', 'arguments[0] = 2; return a');
        function sloppy(a, b) { arguments[0] = 3; return a + arguments.length + b; }
        const inner = ({ a, b = a } = {}, [first, ...others] = list) => { captured++; return `${a}${b}${first}${others}`; };
        try { later; let later = 1; } catch (error) { list.push(error.name); }
        outer: for (const one of list) { for (const two of list) { if (one === two) continue outer; } }
        return [inner({ a: 1 }), [...count(3)].map((f) => f()), new Derived(1, 2).rest, new Derived().secret, Base.made, tag`x${1}\\n${2}`,
          mapped(1), sloppy(1, 2), big + 1n, text, local, half, /a+(?<n>b)/u.exec('xaab').groups.n, list].join(';');
    })(['p', 'q', 'r'])";

    fn run(code: &str, detail: Detail) -> (String, usize) {
        let context = Context::full(&Runtime::new().expect("a runtime")).expect("a context");
        context.with(|ctx| {
            let Ok(bytecode) = compile(&ctx, "code.js", code, detail) else { panic!("a script") };
            let value: Value = script::evaluate_bytecode(&ctx, &bytecode).expect("evaluated");
            (Coerced::<String>::from_js(&ctx, value).expect("a string").0, bytecode.len())
        })
    }

    #[test]
    fn code_has_the_same_meaning_without_its_variables() {
        let (expected, large) = run(CODE, Detail::Lines);
        assert!(expected.contains("11pq,r") && expected.contains("grün 🦀"), "{expected}");
        for detail in [Detail::File, Detail::None] {
            let (result, small) = run(CODE, detail);
            assert_eq!(result, expected);
            assert!(small * 10 < large * 9, "{small} of {large} bytes");
        }
    }

    #[test]
    fn code_with_eval_keeps_its_variables() {
        let code = "(function (a) { const b = 2; return eval('a + b'); })(1)";
        assert_eq!(run(code, Detail::None).0, "3");
    }

    #[test]
    fn other_forms_are_left_alone() {
        let context = Context::full(&Runtime::new().expect("a runtime")).expect("a context");
        let Ok(bytecode) = context.with(|ctx| compile(&ctx, "code.js", "1", Detail::Lines)) else { panic!("a script") };
        for length in 0..bytecode.len() {
            assert_eq!(slim(&bytecode[..length]), None);
        }
        assert!(slim(&bytecode).is_some());
        assert_eq!(slim(&[&[VERSION + 1], &bytecode[1..]].concat()), None);
    }
}
