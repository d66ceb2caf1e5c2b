//! A browser without scripts: one connection a request, and one cookie.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Server, within_deadline};

pub(crate) struct Browser {
    authority: String,
    key: String,
    cookie: Option<String>,
}

pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// Of the body, as it came.
    pub(crate) bytes: usize,
}

impl Page {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn location(&self) -> &str {
        self.header("location")
    }

    pub(crate) fn form_token(&self) -> String {
        let (_, rest) = self
            .text
            .split_once(r#"name="form_token" value=""#)
            .unwrap();
        rest.split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    pub(crate) fn new(server: &Server) -> Self {
        let authority = server.origin().replace("http://", "");
        let key = server.api().key.to_owned();
        Self {
            authority,
            key,
            cookie: None,
        }
    }

    pub(crate) fn with_key(server: &Server, key: &str) -> Self {
        Self {
            key: key.to_owned(),
            ..Self::new(server)
        }
    }

    pub(crate) fn moves_to(&mut self, server: &Server) {
        self.authority = server.origin().replace("http://", "");
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn cookie(&self) -> Option<String> {
        self.cookie.clone()
    }

    pub(crate) fn keep(&mut self, cookie: Option<String>) {
        self.cookie = cookie;
    }

    pub(crate) async fn sign_in(&mut self, back: &str) -> Page {
        let key = self.key.clone();
        self.post("/sign-in", &[("key", &key), ("back", back)])
            .await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Page {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Page {
        self.send(Method::GET, path, headers, String::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let origin = format!("http://{}", self.authority);
        self.post_with(path, fields, &[("origin", &origin)]).await
    }

    /// The same with values that the test owns.
    pub(crate) async fn post_all(&mut self, path: &str, fields: &[(&str, String)]) -> Page {
        let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
        self.post(path, &fields.collect::<Vec<_>>()).await
    }

    /// Sends a form and leaves: before the answer, or in the middle of it.
    pub(crate) async fn post_and_leave(&self, path: &str, fields: &[(&str, &str)], waits: bool) {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let (authority, cookie) = (&self.authority, self.cookie.as_deref().unwrap());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {authority}\r\norigin: http://{authority}\r\n\
             cookie: {cookie}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        within_deadline(path, async {
            let mut stream = TcpStream::connect(authority).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            if waits {
                stream.read_u8().await.unwrap();
            }
        })
        .await;
    }

    pub(crate) async fn post_with(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Page {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.send(Method::POST, path, headers, body).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Page {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let page = within_deadline(path, async {
            let stream = TcpStream::connect(&self.authority).await.unwrap();
            let io = TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            let connection = tokio::spawn(connection);
            let (head, body) = sender.send_request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            connection.abort();
            Page {
                status: head.status,
                headers: head.headers,
                text: String::from_utf8_lossy(&body).into_owned(),
                bytes: body.len(),
            }
        })
        .await;
        if let Some((cookie, _)) = page.header("set-cookie").split_once(';') {
            self.cookie = Some(cookie.to_owned());
        }
        page
    }
}
