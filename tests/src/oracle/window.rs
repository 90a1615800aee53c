//! The features of a window, recomputed from its packets with 128-bit integers and plain f64.

use super::flow::{WirePacket, flag_count};

/// The largest value of an inter-arrival time in the window, microseconds.
const IAT_LIMIT: u64 = (1 << 28) - 1;
/// The largest length in the window, bytes.
const LEN_LIMIT: u64 = (1 << 20) - 1;

/// A feature's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// An exact count or sum.
    Int(u128),
    /// A quotient, root or logarithm.
    Float(f64),
    /// No value, printed as `null`.
    Null,
}

/// Named values in the order of the schema.
pub type Values = Vec<(String, Value)>;

/// The flag names in the order of the TCP header's bits, FIN first.
pub const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

/// The bin of a length in bytes.
pub fn len_bin(len: u64) -> usize {
    const EDGES: [u64; 8] = [1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384];
    match EDGES.iter().rposition(|edge| len >= *edge) {
        Some(above) => 24 + above,
        None => (len / 64) as usize,
    }
}

/// The bin of an inter-arrival time in microseconds.
pub fn iat_bin(iat_us: u64) -> usize {
    let mut bin = 0;
    while iat_us >> (bin + 1) > 0 {
        bin += 1;
    }
    bin
}

/// Shannon entropy in bits of the given bins, counted afresh.
pub fn entropy(bins: impl Iterator<Item = usize>) -> f64 {
    let mut counts = [0u32; 32];
    let mut n = 0u32;
    for bin in bins {
        counts[bin] += 1;
        n += 1;
    }
    let share = |count: u32| f64::from(count) / f64::from(n);
    counts.iter().filter(|count| **count > 0).map(|c| -share(*c) * share(*c).log2()).sum()
}

/// Every `win_` feature over `packets`, which are one flow's last ones in order of arrival.
pub fn window_features(packets: &[WirePacket]) -> Values {
    assert!(!packets.is_empty(), "a window holds at least the packet that moved it");
    let n = packets.len() as u128;
    let lens: Vec<u64> = packets.iter().map(|p| u64::from(p.len).min(LEN_LIMIT)).collect();
    let iats: Vec<u64> =
        packets.windows(2).map(|w| (w[1].time_us - w[0].time_us).min(IAT_LIMIT)).collect();
    let span: u128 = iats.iter().map(|i| u128::from(*i)).sum();
    let len = Moments::of(&lens);
    let mut out = Values::new();
    let mut put = |name: &str, value| out.push((format!("win_{name}"), value));

    put("packets", Value::Int(n));
    put("span_us", Value::Int(span));
    put("len_sum", Value::Int(len.sum));
    put("len_mean", Value::Float(len.mean));
    put("len_var", Value::Float(len.var));
    put("len_std", Value::Float(len.var.sqrt()));
    put("len_min", Value::Int(len.min));
    put("len_max", Value::Int(len.max));
    put("len_entropy", Value::Float(entropy(lens.iter().map(|len| len_bin(*len)))));
    if iats.is_empty() {
        for name in ["mean_us", "var_us2", "std_us", "min_us", "max_us", "entropy"] {
            put(&format!("iat_{name}"), Value::Null);
        }
    } else {
        let iat = Moments::of(&iats);
        put("iat_mean_us", Value::Float(iat.mean));
        put("iat_var_us2", Value::Float(iat.var));
        put("iat_std_us", Value::Float(iat.var.sqrt()));
        put("iat_min_us", Value::Int(iat.min));
        put("iat_max_us", Value::Int(iat.max));
        put("iat_entropy", Value::Float(entropy(iats.iter().map(|iat| iat_bin(*iat)))));
    }
    for (bit, name) in FLAGS.iter().enumerate() {
        put(name, Value::Int(flag_count(packets, bit)));
    }
    let rate = |count: u128| match span {
        0 => Value::Null,
        span => Value::Float(count as f64 * 1e6 / span as f64),
    };
    put("packets_per_s", rate(n));
    put("bytes_per_s", rate(len.sum));
    for (name, bwd) in [("fwd", false), ("bwd", true)] {
        let side: Vec<u64> =
            packets.iter().zip(&lens).filter(|(p, _)| p.bwd == bwd).map(|(_, len)| *len).collect();
        put(&format!("{name}_packets"), Value::Int(side.len() as u128));
        if side.is_empty() {
            put(&format!("{name}_len_sum"), Value::Int(0));
            put(&format!("{name}_len_mean"), Value::Null);
            put(&format!("{name}_len_std"), Value::Null);
        } else {
            let side = Moments::of(&side);
            put(&format!("{name}_len_sum"), Value::Int(side.sum));
            put(&format!("{name}_len_mean"), Value::Float(side.mean));
            put(&format!("{name}_len_std"), Value::Float(side.var.sqrt()));
        }
    }
    out
}

struct Moments {
    sum: u128,
    mean: f64,
    /// The population's variance.
    var: f64,
    min: u128,
    max: u128,
}

impl Moments {
    fn of(values: &[u64]) -> Self {
        let n = values.len() as u128;
        let sum: u128 = values.iter().map(|v| u128::from(*v)).sum();
        let squares: u128 = values.iter().map(|v| u128::from(*v) * u128::from(*v)).sum();
        Self {
            sum,
            mean: sum as f64 / n as f64,
            var: (n * squares - sum * sum) as f64 / (n * n) as f64,
            min: u128::from(*values.iter().min().expect("not empty")),
            max: u128::from(*values.iter().max().expect("not empty")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(time_us: u64, len: u32, flags: u8, bwd: bool) -> WirePacket {
        WirePacket { time_us, len, payload: 0, flags, bwd, ttl: 64, tcp_window: None }
    }

    fn get(values: &Values, name: &str) -> Value {
        values.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    #[test]
    fn bins_have_the_edges_of_the_design() {
        let edges = [
            (0, 0),
            (63, 0),
            (64, 1),
            (1535, 23),
            (1536, 24),
            (2047, 24),
            (2048, 25),
            (3071, 25),
            (3072, 26),
            (4096, 27),
            (6144, 28),
            (8192, 29),
            (12288, 30),
            (16383, 30),
            (16384, 31),
            (LEN_LIMIT, 31),
        ];
        for (len, bin) in edges {
            assert_eq!(len_bin(len), bin, "length {len}");
        }
        for (iat, bin) in
            [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (1023, 9), (1024, 10), (IAT_LIMIT, 27)]
        {
            assert_eq!(iat_bin(iat), bin, "gap {iat}");
        }
    }

    #[test]
    fn worked_example() {
        let packets = [
            packet(1000, 60, 2, false),
            packet(1010, 60, 18, true),
            packet(1030, 100, 16, false),
            packet(1030, 1500, 24, false),
        ];
        let values = window_features(&packets);
        assert_eq!(get(&values, "win_packets"), Value::Int(4));
        assert_eq!(get(&values, "win_span_us"), Value::Int(30));
        assert_eq!(get(&values, "win_len_sum"), Value::Int(1720));
        assert_eq!(get(&values, "win_len_mean"), Value::Float(430.0));
        // Σx² = 2 267 200; (4 · 2267200 - 1720²) / 16.
        assert_eq!(get(&values, "win_len_var"), Value::Float(381_900.0));
        // Bins 0, 0, 1, 23: two of a half and a quarter each: 1.5 bits.
        assert_eq!(get(&values, "win_len_entropy"), Value::Float(1.5));
        assert_eq!(get(&values, "win_iat_mean_us"), Value::Float(10.0));
        assert_eq!(get(&values, "win_iat_min_us"), Value::Int(0));
        assert_eq!(get(&values, "win_iat_max_us"), Value::Int(20));
        assert_eq!(get(&values, "win_syn"), Value::Int(2));
        assert_eq!(get(&values, "win_ack"), Value::Int(3));
        assert_eq!(get(&values, "win_packets_per_s"), Value::Float(4.0 * 1e6 / 30.0));
        assert_eq!(get(&values, "win_bytes_per_s"), Value::Float(1720.0 * 1e6 / 30.0));
        assert_eq!(get(&values, "win_fwd_packets"), Value::Int(3));
        assert_eq!(get(&values, "win_bwd_len_mean"), Value::Float(60.0));
        assert_eq!(get(&values, "win_bwd_len_std"), Value::Float(0.0));
    }

    #[test]
    fn one_packet_has_no_gaps_and_no_rates() {
        let values = window_features(&[packet(5, 40, 2, false)]);
        for name in ["win_iat_mean_us", "win_iat_entropy", "win_packets_per_s", "win_bwd_len_std"] {
            assert_eq!(get(&values, name), Value::Null, "{name}");
        }
        assert_eq!(get(&values, "win_span_us"), Value::Int(0));
        assert_eq!(get(&values, "win_len_entropy"), Value::Float(0.0));
    }

    #[test]
    fn saturates_lengths_and_gaps() {
        let packets = [packet(0, 2_000_000, 0, false), packet(1 << 30, 10, 0, false)];
        let values = window_features(&packets);
        assert_eq!(get(&values, "win_span_us"), Value::Int(IAT_LIMIT.into()));
        assert_eq!(get(&values, "win_len_max"), Value::Int(LEN_LIMIT.into()));
    }
}
