//! The agent's JSON lines: parsing and the invariants every one of them holds.

use std::{collections::HashMap, fmt, net::IpAddr, sync::OnceLock};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::oracle::{FLAGS, FlowId};

/// The envelope's fields in order.
pub const ENVELOPE: [&str; 27] = [
    "schema",
    "ts",
    "iface",
    "hook",
    "community_id",
    "proto",
    "src",
    "sport",
    "dst",
    "dport",
    "vlan",
    "vlan_inner",
    "reason",
    "seq",
    "direction_by",
    "midstream",
    "missed",
    "super_packets",
    "super_packets_kept",
    "pid",
    "comm",
    "exe",
    "uid",
    "cgroup",
    "cgroup_id",
    "container_id",
    "lost",
];

/// Those of them about a process.
pub const PROCESS: [&str; 7] = ["pid", "comm", "exe", "uid", "cgroup", "cgroup_id", "container_id"];

/// Why a line may have been printed.
pub const REASONS: [&str; 8] =
    ["stride", "interval", "fin", "rst", "idle", "active", "evict", "stop"];

/// The totals and window fields in the order of the schema, `flow_duration_us` first.
pub fn feature_names() -> &'static [String] {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let mut names = vec!["flow_duration_us".to_owned()];
        for side in ["fwd", "bwd"] {
            let counts = ["packets", "bytes", "payload_bytes"].into_iter().chain(FLAGS);
            let rest = ["ttl_min", "ttl_max", "init_window"];
            names.extend(counts.chain(rest).map(|name| format!("{side}_{name}")));
        }
        let lens = ["sum", "mean", "var", "std", "min", "max", "entropy"];
        let iats = ["mean_us", "var_us2", "std_us", "min_us", "max_us", "entropy"];
        names.extend(["win_packets", "win_span_us"].map(str::to_owned));
        names.extend(lens.map(|name| format!("win_len_{name}")));
        names.extend(iats.map(|name| format!("win_iat_{name}")));
        names.extend(FLAGS.map(|name| format!("win_{name}")));
        names.extend(["win_packets_per_s", "win_bytes_per_s"].map(str::to_owned));
        for side in ["fwd", "bwd"] {
            let side_names = ["packets", "len_sum", "len_mean", "len_std"];
            names.extend(side_names.map(|name| format!("win_{side}_{name}")));
        }
        names
    })
}

/// One line of the agent, its fields in the order printed.
#[derive(Debug, Clone)]
pub struct Line {
    /// The line as printed.
    pub raw: String,
    /// Names and values in order.
    pub fields: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Line {
    /// Parses one line; anything but one flat JSON object is an error.
    pub fn parse(raw: &str) -> Result<Self, String> {
        let mut reader = serde_json::Deserializer::from_str(raw);
        let fields = reader
            .deserialize_map(Fields)
            .and_then(|fields| reader.end().map(|()| fields))
            .map_err(|error| format!("not a JSON object: {error}: {raw}"))?;
        let mut index = HashMap::new();
        for (at, (name, _)) in fields.iter().enumerate() {
            if index.insert(name.clone(), at).is_some() {
                return Err(format!("{name} appears twice: {raw}"));
            }
        }
        Ok(Self { raw: raw.to_owned(), fields, index })
    }

    /// Parses a line of `--shape array`: the envelope, then `features` in the order of the schema.
    pub fn from_array(raw: &str) -> Result<Self, String> {
        let line = Self::parse(raw)?;
        let Some((last, envelope)) = line.fields.split_last() else {
            return Err(format!("an empty object: {raw}"));
        };
        let (name, Value::Array(features)) = last else {
            return Err(format!("no array at the end: {raw}"));
        };
        if name != "features" || features.len() != feature_names().len() {
            return Err(format!("{name} has {} values: {raw}", features.len()));
        }
        let named = feature_names().iter().cloned().zip(features.iter().cloned());
        let fields: Vec<_> = envelope.iter().cloned().chain(named).collect();
        let index = fields.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
        Ok(Self { raw: line.raw, fields, index })
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> &Value {
        let at = self.index.get(name).unwrap_or_else(|| panic!("no field {name} in {}", self.raw));
        &self.fields[*at].1
    }

    /// A field that must be an unsigned integer.
    pub fn int(&self, name: &str) -> u64 {
        self.get(name).as_u64().unwrap_or_else(|| panic!("{name} is no integer in {}", self.raw))
    }

    /// A field that is an unsigned integer or null.
    pub fn int_or_null(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Value::Null => None,
            _ => Some(self.int(name)),
        }
    }

    /// A field that is a number or null.
    pub fn float_or_null(&self, name: &str) -> Option<f64> {
        match self.get(name) {
            Value::Null => None,
            value => Some(
                value.as_f64().unwrap_or_else(|| panic!("{name} is no number in {}", self.raw)),
            ),
        }
    }

    /// A field that must be a string.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).as_str().unwrap_or_else(|| panic!("{name} is no string in {}", self.raw))
    }

    /// Packets of the flow up to this line.
    pub fn packets(&self) -> u64 {
        self.int("fwd_packets") + self.int("bwd_packets")
    }

    /// The flow's name.
    pub fn flow(&self) -> FlowId {
        let address = |name: &str| -> IpAddr {
            self.text(name).parse().unwrap_or_else(|e| panic!("{name}: {e} in {}", self.raw))
        };
        let small = |name: &str| self.int_or_null(name).map(|v| u16::try_from(v).expect(name));
        FlowId {
            proto: u8::try_from(self.int("proto")).expect("protocol number"),
            src: address("src"),
            sport: small("sport"),
            dst: address("dst"),
            dport: small("dport"),
            vlan: small("vlan"),
            vlan_inner: small("vlan_inner"),
        }
    }

    /// Everything wrong with this line alone.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let features = feature_names().iter().map(String::as_str);
        let wanted: Vec<&str> = ENVELOPE.into_iter().chain(features).collect();
        let mut printed = self.fields.iter().map(|(name, _)| name.as_str());
        for name in &wanted {
            if !self.index.contains_key(*name) {
                faults.push(format!("field {name} is missing"));
            } else if !printed.any(|field| field == *name) {
                faults.push(format!("field {name} is out of order"));
                break;
            }
        }
        if !faults.is_empty() {
            return faults;
        }
        let mut expect = |holds: bool, what: &str| {
            if !holds {
                faults.push(what.to_owned());
            }
        };
        let hash = self.text("schema").strip_prefix("feature-agent/1:");
        expect(
            hash.is_some_and(|h| h.len() == 8 && h.bytes().all(|b| b.is_ascii_hexdigit())),
            "schema is not feature-agent/1: and 8 hex digits",
        );
        expect(six_decimals(&self.raw), "ts has not exactly 6 decimals");
        expect(REASONS.contains(&self.text("reason")), "unknown reason");
        expect(["syn", "synack", "first"].contains(&self.text("direction_by")), "direction_by");
        expect(self.get("midstream").is_boolean(), "midstream is no boolean");
        expect(["tc", "socket"].contains(&self.text("hook")), "unknown hook");
        expect(
            self.get("iface").is_null() == (self.text("hook") == "socket"),
            "iface is null for hook socket only",
        );
        let is_known = !self.get("pid").is_null();
        expect(
            ["comm", "uid", "cgroup_id"].iter().all(|name| self.get(name).is_null() != is_known),
            "pid, comm, uid and cgroup_id come together",
        );
        expect(
            is_known
                || ["exe", "cgroup", "container_id"].iter().all(|name| self.get(name).is_null()),
            "exe, cgroup and container_id are a process's",
        );
        self.expect_arithmetic(&mut expect);
        faults
    }

    /// What the line's own numbers say about each other.
    fn expect_arithmetic(&self, expect: &mut impl FnMut(bool, &str)) {
        let n = self.int("win_packets");
        let span = self.int("win_span_us");
        let duration = self.int("flow_duration_us");
        expect(n >= 1 && n <= self.packets(), "win_packets against the totals");
        expect(span <= duration, "the window is longer than the flow");
        expect(n < self.packets() || span == duration, "a whole flow's window is its duration");
        expect(
            self.int("win_fwd_packets") + self.int("win_bwd_packets") == n,
            "window packets by direction",
        );
        expect(
            self.int("win_fwd_len_sum") + self.int("win_bwd_len_sum") == self.int("win_len_sum"),
            "window lengths by direction",
        );
        let float = |name: &str| self.float_or_null(name);
        let near = |a: Option<f64>, b: f64| a.is_some_and(|a| close(a, b));
        expect(
            near(float("win_len_mean"), self.int("win_len_sum") as f64 / n as f64),
            "win_len_mean against win_len_sum",
        );
        expect(
            float("win_len_var").is_some_and(|v| near(float("win_len_std"), v.sqrt())),
            "win_len_std against win_len_var",
        );
        for name in ["win_iat_mean_us", "win_iat_var_us2", "win_iat_std_us", "win_iat_entropy"] {
            expect(float(name).is_none() == (n == 1), &format!("{name} null for one packet only"));
        }
        if n > 1 {
            let mean = float("win_iat_mean_us");
            expect(near(mean, span as f64 / (n - 1) as f64), "win_iat_mean_us against the span");
            let (min, max) = (self.int("win_iat_min_us"), self.int("win_iat_max_us"));
            expect(
                mean.is_some_and(|m| {
                    min as f64 <= m * (1. + 1e-12) && m <= max as f64 * (1. + 1e-12)
                }),
                "win_iat_mean_us between min and max",
            );
            expect(
                float("win_iat_var_us2").is_some_and(|v| near(float("win_iat_std_us"), v.sqrt())),
                "win_iat_std_us against win_iat_var_us2",
            );
            let most = ((n - 1) as f64).log2() + 1e-9;
            expect(
                float("win_iat_entropy").is_some_and(|h| h > -1e-9 && h <= most),
                "win_iat_entropy within its range",
            );
        }
        for (name, count) in
            [("win_packets_per_s", n), ("win_bytes_per_s", self.int("win_len_sum"))]
        {
            let rate = float(name);
            let right = match span {
                0 => rate.is_none(),
                span => near(rate, count as f64 * 1e6 / span as f64),
            };
            expect(right, &format!("{name} against the span"));
        }
    }
}

/// Equal to 1e-9 of the larger.
pub fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// True when the number behind `"ts":` has exactly six decimals.
fn six_decimals(raw: &str) -> bool {
    let Some((_, rest)) = raw.split_once("\"ts\":") else { return false };
    let number: String =
        rest.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    number.split_once('.').is_some_and(|(whole, part)| !whole.is_empty() && part.len() == 6)
}

/// Parses all lines; the first that is none is an error.
pub fn parse_all<'a>(raw: impl IntoIterator<Item = &'a str>) -> Result<Vec<Line>, String> {
    raw.into_iter().map(Line::parse).collect()
}

/// The lives of the flows in `lines`: a life starts at `seq` 0. Lives of one flow are in order.
///
/// Faults of single lines, gaps in `seq` and packets running backwards are errors.
pub fn lives(lines: &[Line]) -> Result<Vec<Vec<&Line>>, Vec<String>> {
    let mut faults = Vec::new();
    let mut lives: Vec<Vec<&Line>> = Vec::new();
    let mut current: HashMap<(FlowId, String), usize> = HashMap::new();
    for line in lines {
        let own = line.faults();
        if !own.is_empty() {
            faults.push(format!("{}: {}", own.join("; "), line.raw));
            continue;
        }
        let key = (line.flow(), line.text("iface").to_owned());
        let seq = line.int("seq");
        match current.get(&key) {
            Some(life) if seq > 0 => {
                let last = lives[*life].last().expect("a life has a line");
                if seq != last.int("seq") + 1 {
                    faults.push(format!("seq {seq} after {}: {}", last.int("seq"), line.raw));
                }
                if line.packets() < last.packets() || line.int("missed") < last.int("missed") {
                    faults.push(format!("runs backwards: {}\n  after {}", line.raw, last.raw));
                }
                lives[*life].push(line);
            }
            _ => {
                if seq != 0 {
                    faults.push(format!("a flow starts with seq {seq}: {}", line.raw));
                }
                current.insert(key, lives.len());
                lives.push(vec![line]);
            }
        }
    }
    if faults.is_empty() { Ok(lives) } else { Err(faults) }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = map.next_entry()? {
            fields.push(entry);
        }
        Ok(fields)
    }
}
