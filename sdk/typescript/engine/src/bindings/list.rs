//! Arrays for JavaScript that are made at once: to set one element after another costs more than most natives.

use rquickjs::{Ctx, Error, IntoJs, Result, Value, qjs};

/// The elements of an array.
pub struct List<'js> {
    ctx: Ctx<'js>,
    /// Each is owned.
    items: Vec<qjs::JSValue>,
}

impl<'js> List<'js> {
    /// An empty list with space for this number of elements.
    pub fn new(ctx: &Ctx<'js>, capacity: usize) -> Self {
        Self { ctx: ctx.clone(), items: Vec::with_capacity(capacity) }
    }

    /// A list of texts.
    pub fn of_texts<'a>(ctx: &Ctx<'js>, texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut list = Self::new(ctx, 0);
        texts.into_iter().for_each(|text| list.text(text));
        list
    }

    /// Adds a text. If the memory is full, the list becomes an exception.
    pub fn text(&mut self, text: &str) {
        // SAFETY: the engine copies the text, and the value is owned here.
        let item = unsafe {
            qjs::JS_NewStringLen(self.ctx.as_raw().as_ptr(), text.as_ptr().cast(), text.len() as qjs::size_t)
        };
        self.items.push(item);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u32) {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        self.items.push(qjs::JS_MKVAL(qjs::JS_TAG_INT, number));
    }

    /// Adds a value.
    pub fn value(&mut self, value: impl IntoJs<'js>) -> Result<()> {
        let value = value.into_js(&self.ctx)?;
        // SAFETY: the value is alive; the list owns the second reference.
        self.items.push(unsafe { qjs::JS_DupValue(self.ctx.as_raw().as_ptr(), value.as_raw()) });
        Ok(())
    }
}

impl<'js> IntoJs<'js> for List<'js> {
    fn into_js(mut self, _: &Ctx<'js>) -> Result<Value<'js>> {
        // SAFETY: these values are not counted.
        if self.items.iter().any(|&item| unsafe { qjs::JS_IsException(item) }) {
            return Err(Error::Exception);
        }
        let items = std::mem::take(&mut self.items);
        let count = i32::try_from(items.len()).map_err(|_| Error::Unknown)?;
        // SAFETY: the array takes the items, which the list does not free any more.
        unsafe {
            let array = qjs::JS_NewArrayFrom(self.ctx.as_raw().as_ptr(), count, items.as_ptr());
            match qjs::JS_IsException(array) {
                true => Err(Error::Exception),
                false => Ok(Value::from_raw(self.ctx.clone(), array)),
            }
        }
    }
}

impl Drop for List<'_> {
    fn drop(&mut self) {
        for item in self.items.drain(..) {
            // SAFETY: the list owns each item.
            unsafe { qjs::JS_FreeValue(self.ctx.as_raw().as_ptr(), item) };
        }
    }
}

/// Texts as an argument of a call.
pub struct Texts(pub Vec<String>);

impl<'js> IntoJs<'js> for Texts {
    fn into_js(self, ctx: &Ctx<'js>) -> Result<Value<'js>> {
        List::of_texts(ctx, self.0.iter().map(String::as_str)).into_js(ctx)
    }
}
