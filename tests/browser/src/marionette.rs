//! Marionette, the protocol that Firefox itself speaks: JSON behind its length, over TCP. No driver is needed.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// An answer that takes longer than this does not come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A session with a running Firefox.
pub(crate) struct Marionette {
    stream: RefCell<TcpStream>,
    next: Cell<u64>,
}

impl Marionette {
    /// Begins a session with the Firefox at this address.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let stream = TcpStream::connect(address).map_err(text)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
        let this = Self { stream: RefCell::new(stream), next: Cell::new(1) };
        this.receive()?; // the server says hello first
        this.command("WebDriver:NewSession", &json!({ "acceptInsecureCerts": true }))?;
        Ok(this)
    }

    /// Runs a command: `[0, number, name, parameters]`, answered by `[1, number, error, result]`.
    pub(crate) fn command(&self, name: &str, params: &Value) -> Result<Value, String> {
        let number = self.next.replace(self.next.get() + 1);
        let message = json!([0, number, name, params]).to_string();
        write!(self.stream.borrow_mut(), "{}:{message}", message.len()).map_err(|error| error.to_string())?;
        let answer = self.receive()?;
        if answer[1] != number {
            return Err(format!("an answer to another command: {answer}"));
        }
        if !answer[2].is_null() {
            return Err(answer[2].to_string());
        }
        // A result that is not an object comes wrapped in one.
        let result = answer[3].clone();
        match result.as_object() {
            Some(object) if object.len() == 1 && object.contains_key("value") => Ok(result["value"].clone()),
            _ => Ok(result),
        }
    }

    fn receive(&self) -> Result<Value, String> {
        let mut stream = self.stream.borrow_mut();
        let text = |error: std::io::Error| error.to_string();
        let mut length = 0_usize;
        loop {
            let mut byte = [0];
            stream.read_exact(&mut byte).map_err(text)?;
            match byte[0] {
                b':' => break,
                digit @ b'0'..=b'9' => length = length * 10 + usize::from(digit - b'0'),
                other => return Err(format!("{other} in a length")),
            }
        }
        let mut message = vec![0; length];
        stream.read_exact(&mut message).map_err(text)?;
        serde_json::from_slice(&message).map_err(|error| error.to_string())
    }
}
