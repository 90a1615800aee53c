//! Servers that take vectors, as `--output` names them: `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][,…]/NAME`.

use std::{
    borrow::Cow,
    fmt,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use percent_encoding::percent_decode_str;

/// What else a name is made of, in braces.
const IFACE: &str = "{iface}";
const HOST: &str = "{host}";

/// Servers, any of which takes the vectors, and the name under which they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Word of the output's kind, for people.
    scheme: &'static str,
    /// At least one.
    pub servers: Vec<Server>,
    /// Who we are to them.
    pub login: Option<Login>,
    /// The subject or topic, with its placeholders.
    pub name: String,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A user and a password, or a token alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user, or the token.
    pub user: String,
    /// `None`: the user is a token.
    pub password: Option<String>,
}

impl Server {
    /// Its addresses as they are now, each once.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let found = found.with_context(|| format!("cannot find the address of {self}"))?;
        let mut all = Vec::new();
        for address in found {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        Ok(all)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(not shown)")
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Without user and password.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        write!(f, "{}://{}/{}", self.scheme, servers.join(","), self.name)
    }
}

impl Remote {
    /// Reads what stands behind `SCHEME://`.
    pub(super) fn parse(scheme: &'static str, port: u16, rest: &str) -> Result<Self, String> {
        let (authority, name) = rest
            .split_once('/')
            .filter(|(authority, name)| !authority.is_empty() && !name.is_empty())
            .ok_or_else(|| {
                format!("write {scheme}://HOST:PORT/NAME: the servers, and what vectors go to")
            })?;
        let (login, servers) = match authority.rsplit_once('@') {
            Some((login, servers)) => (Some(self::login(login)?), servers),
            None => (None, authority),
        };
        let servers =
            servers.split(',').map(|text| server(text, port)).collect::<Result<_, _>>()?;
        check_name(name)?;
        Ok(Self { scheme, servers, login, name: name.to_owned() })
    }

    /// The name by interface, on this host.
    pub(super) fn names(&self) -> Names {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let pattern = self.name.replace(HOST, &token(&host));
        Names { last: (None, pattern.clone()), pattern }
    }

    /// Whether the name holds the interface's.
    pub(super) fn is_by_iface(&self) -> bool {
        self.name.contains(IFACE)
    }
}

/// What vectors go to, by interface.
#[derive(Debug)]
pub(super) struct Names {
    pattern: String,
    /// The interface of the last vector, most often that of the next, and the name for it.
    last: (Option<Arc<str>>, String),
}

impl Names {
    /// Where the vectors of an interface go; it is asked for only if [`Remote::is_by_iface`].
    pub(super) fn of(&mut self, iface: Option<&Arc<str>>) -> &str {
        if self.last.0.as_ref() != iface {
            let name =
                iface.map_or(String::new(), |iface| self.pattern.replace(IFACE, &token(iface)));
            self.last = (iface.cloned(), name);
        }
        &self.last.1
    }
}

/// A name as one token of a subject: dots would part it, the others are wild cards.
fn token(name: &str) -> String {
    let fine = |c: char| !(c.is_whitespace() || c.is_control() || ".*>/".contains(c));
    name.chars().map(|c| if fine(c) { c } else { '_' }).collect()
}

/// The name of an output as it was given, but for user and password.
pub fn without_login(text: &str) -> Cow<'_, str> {
    let parts = text.split_once("://").and_then(|(scheme, rest)| {
        let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, _) = authority.rsplit_once('@')?;
        Some((scheme, &rest[login.len()..]))
    });
    parts.map_or(Cow::Borrowed(text), |(scheme, rest)| Cow::Owned(format!("{scheme}://...{rest}")))
}

fn login(text: &str) -> Result<Login, String> {
    let decode = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .map(String::from)
            .map_err(|_| "user and password must be UTF-8".to_owned())
    };
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(decode(password)?)),
        None => (text, None),
    };
    let user = decode(user)?;
    if user.is_empty() {
        Err("the user before `@` is empty".into())
    } else {
        Ok(Login { user, password })
    }
}

fn server(text: &str, default_port: u16) -> Result<Server, String> {
    let bad = || format!("`{text}` is no HOST:PORT");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (
                host,
                if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(bad)?) },
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Ok(default_port), |port| port.parse().map_err(|_| bad()))?;
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    if host.is_empty() || port == 0 || !host.chars().all(fine) {
        return Err(bad());
    }
    Ok(Server { host: host.to_owned(), port })
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = name.replace(IFACE, "x").replace(HOST, "x");
    if plain.contains(['{', '}']) {
        return Err(format!("in `{name}` only {IFACE} and {HOST} are replaced"));
    }
    if plain.contains(|c: char| c.is_whitespace() || c.is_control() || "*>/".contains(c))
        || plain.split('.').any(str::is_empty)
    {
        return Err(format!(
            "`{name}` is no name that vectors can go to: words joined by dots, no wild cards"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<Remote, String> {
        Remote::parse("nats", 4222, rest)
    }

    #[test]
    fn servers_login_and_name_are_read() {
        let remote = parse("me:p%40ss%2f@a.example,[fd00::1]:4223/x.{host}.{iface}").expect("fine");
        let servers: Vec<String> = remote.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["a.example:4222", "[fd00::1]:4223"]);
        let login = Login { user: "me".into(), password: Some("p@ss/".into()) };
        assert_eq!(remote.login, Some(login));
        let token = parse("s3cret@h/x").expect("fine").login.expect("a token");
        assert_eq!((token.user.as_str(), token.password), ("s3cret", None));
    }

    #[test]
    fn nobody_sees_a_password() {
        let remote = parse("zorro:hidden@h:1/x").expect("fine");
        assert_eq!(remote.to_string(), "nats://h:1/x");
        assert!(!format!("{remote:?}").contains("hidden"));
        assert!(!format!("{remote:?}").contains("zorro"), "a token is a secret too: {remote:?}");
    }

    #[test]
    fn what_was_given_is_printed_without_the_login() {
        for (given, printed) in [
            ("nats://me:hidden@h:1/x", "nats://...@h:1/x"),
            ("nats://token@h", "nats://...@h"),
            ("nats://h:1/x", "nats://h:1/x"),
            ("nats://h:1/x@y", "nats://h:1/x@y"),
            ("file@name", "file@name"),
        ] {
            assert_eq!(without_login(given), printed);
        }
    }

    #[test]
    fn what_is_no_server_or_name_is_refused() {
        for (text, said) in [
            ("", "write nats://HOST:PORT/NAME"),
            ("h:4222", "write nats://HOST:PORT/NAME"),
            ("h:4222/", "write nats://HOST:PORT/NAME"),
            ("h:0/x", "`h:0` is no HOST:PORT"),
            ("h:99999/x", "`h:99999` is no HOST:PORT"),
            ("a,,b/x", "`` is no HOST:PORT"),
            ("[::1/x", "`[::1` is no HOST:PORT"),
            ("h/x.*", "`x.*` is no name"),
            ("h/x..y", "`x..y` is no name"),
            ("h/x y", "`x y` is no name"),
            ("h/{port}", "in `{port}` only {iface} and {host}"),
            (":p@h/x", "the user before `@` is empty"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }

    #[test]
    fn placeholders_become_single_tokens() {
        let mut names = parse("h/a.{iface}.b").expect("fine").names();
        assert_eq!(names.of(Some(&"eth0.100".into())), "a.eth0_100.b");
        assert_eq!(names.of(Some(&"wg*".into())), "a.wg_.b");
        let mut names = parse("h/a.{host}").expect("fine").names();
        let name = names.of(None).to_owned();
        assert!(name.starts_with("a.") && name.matches('.').count() == 1, "{name}");
    }

    #[test]
    fn addresses_are_found_each_once() {
        let addresses = |text| server(text, 1).expect("a server").addresses();
        let expected: SocketAddr = "[::1]:2".parse().expect("an address");
        assert_eq!(addresses("[::1]:2").expect("no name to look up"), [expected]);
        let error = addresses("no-such-host.invalid").expect_err("no such host");
        let text = format!("{error:#}");
        assert!(text.starts_with("cannot find the address of no-such-host.invalid:1: "), "{text}");
    }
}
