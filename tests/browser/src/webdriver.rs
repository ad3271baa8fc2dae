//! WebDriver over HTTP, as the drivers of Chromium and WebKit speak it (<https://www.w3.org/TR/webdriver2/>).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// An answer that takes longer than this does not come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A session with a driver.
pub(crate) struct WebDriver {
    address: SocketAddr,
    session: String,
}

impl WebDriver {
    /// Begins a session with the driver at this address.
    pub(crate) fn connect(address: SocketAddr, capabilities: &Value) -> Result<Self, String> {
        let mut driver = Self { address, session: String::new() };
        let body = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let started = driver.send("POST", "/session", &body)?;
        let session = started["sessionId"].as_str().ok_or_else(|| format!("no session in {started}"))?;
        session.clone_into(&mut driver.session);
        Ok(driver)
    }

    /// Runs a command, named as in Marionette.
    pub(crate) fn command(&self, name: &str, params: &Value) -> Result<Value, String> {
        let element = || format!("/element/{}", params["id"].as_str().unwrap_or_default());
        let (method, path) = match name {
            "WebDriver:Navigate" => ("POST", "/url".to_owned()),
            "WebDriver:Refresh" => ("POST", "/refresh".to_owned()),
            "WebDriver:Back" => ("POST", "/back".to_owned()),
            "WebDriver:FindElement" => ("POST", "/element".to_owned()),
            "WebDriver:GetElementText" => ("GET", element() + "/text"),
            "WebDriver:ElementSendKeys" => ("POST", element() + "/value"),
            "WebDriver:ElementClick" => ("POST", element() + "/click"),
            "WebDriver:ExecuteScript" => ("POST", "/execute/sync".to_owned()),
            "WebDriver:GetCookies" => ("GET", "/cookie".to_owned()),
            "WebDriver:DeleteAllCookies" => ("DELETE", "/cookie".to_owned()),
            "WebDriver:GetWindowHandle" => ("GET", "/window".to_owned()),
            "WebDriver:NewWindow" => ("POST", "/window/new".to_owned()),
            "WebDriver:SwitchToWindow" => ("POST", "/window".to_owned()),
            "WebDriver:TakeScreenshot" => ("GET", "/screenshot".to_owned()),
            "chromium:Cdp" => ("POST", "/goog/cdp/execute".to_owned()),
            other => return Err(format!("{other} is not a command")),
        };
        let body = if method == "GET" { &Value::Null } else { params };
        self.send(method, &format!("/session/{}{path}", self.session), body)
    }

    /// Ends the session, and with it the browser.
    pub(crate) fn quit(&self) {
        let _ = self.send("DELETE", &format!("/session/{}", self.session), &Value::Null);
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = exchange(self.address, method, path, &body).map_err(|error| error.to_string())?;
        let mut answer: Value =
            serde_json::from_str(&answer).map_err(|error| format!("{error} in {answer:?}"))?;
        let value = answer["value"].take();
        match value.get("error").and_then(Value::as_str) {
            Some(error) => Err(format!("{error}: {}", value["message"])),
            None => Ok(value),
        }
    }
}

/// One HTTP exchange on a connection of its own: also what can be done while a panic unwinds.
fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut reader = BufReader::new(stream);
    let mut length = None;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok();
            }
            _ => {}
        }
        line.clear();
    }
    let mut body = Vec::new();
    reader.take(length.unwrap_or(u64::MAX)).read_to_end(&mut body)?;
    String::from_utf8(body).map_err(|_| std::io::ErrorKind::InvalidData.into())
}
