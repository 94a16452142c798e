//! What the kernel counts of its TLS: `/proc/net/tls_stat`, for the metrics.
//!
//! Of the whole network namespace, not of this process. Lines unknown here are passed over, and
//! lines a kernel does not have stay 0.

use std::io;

/// The sums of `/proc/net/tls_stat`. "Device" is a network card that encrypts.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsStat {
    /// Sockets that send by the kernel's own code now.
    pub send_software_now: u64,
    /// Sockets that receive by the kernel's own code now.
    pub receive_software_now: u64,
    /// Sockets that send by a device now.
    pub send_device_now: u64,
    /// Sockets that receive by a device now.
    pub receive_device_now: u64,
    /// Sockets that ever sent by the kernel's own code.
    pub send_software: u64,
    /// Sockets that ever received by the kernel's own code.
    pub receive_software: u64,
    /// Sockets that ever sent by a device.
    pub send_device: u64,
    /// Sockets that ever received by a device.
    pub receive_device: u64,
    /// Records that could not be decrypted: forged, damaged, or a wrong key.
    pub decrypt_errors: u64,
    /// Times a device lost its place in the stream of records.
    pub device_resyncs: u64,
    /// Records decrypted twice because they were padded.
    pub decrypt_retries: u64,
    /// Keys replaced, both directions (6.14).
    pub rekeys: u64,
    /// Keys that could not be replaced, both directions (6.14).
    pub rekey_errors: u64,
    /// Key updates that peers announced (6.14).
    pub rekeys_received: u64,
}

/// Reads the sums.
///
/// # Errors
/// `NotFound`: the kernel has no TLS (yet: the module may be loaded later).
pub fn read_tls_stat() -> io::Result<TlsStat> {
    Ok(parse(&std::fs::read_to_string("/proc/net/tls_stat")?))
}

fn parse(text: &str) -> TlsStat {
    let mut stat = TlsStat::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        let Ok(value) = value.parse::<u64>() else { continue };
        let sum = match name {
            "TlsCurrTxSw" => &mut stat.send_software_now,
            "TlsCurrRxSw" => &mut stat.receive_software_now,
            "TlsCurrTxDevice" => &mut stat.send_device_now,
            "TlsCurrRxDevice" => &mut stat.receive_device_now,
            "TlsTxSw" => &mut stat.send_software,
            "TlsRxSw" => &mut stat.receive_software,
            "TlsTxDevice" => &mut stat.send_device,
            "TlsRxDevice" => &mut stat.receive_device,
            "TlsDecryptError" => &mut stat.decrypt_errors,
            "TlsRxDeviceResync" => &mut stat.device_resyncs,
            "TlsDecryptRetry" => &mut stat.decrypt_retries,
            "TlsTxRekeyOk" | "TlsRxRekeyOk" => &mut stat.rekeys,
            "TlsTxRekeyError" | "TlsRxRekeyError" => &mut stat.rekey_errors,
            "TlsRxRekeyReceived" => &mut stat.rekeys_received,
            _ => continue,
        };
        *sum = sum.saturating_add(value);
    }
    stat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_kernel_are_read_and_unknown_ones_passed_over() {
        let text = "TlsCurrTxSw                     \t2\nTlsTxSw                         \t66\n\
                    TlsRxSw                         \t65\nTlsTomorrow 9\nTlsRxRekeyOk 3\n\
                    TlsTxRekeyOk 4\nTlsDecryptError nonsense\nTlsRxDeviceResync\n\n";
        let expected = TlsStat {
            send_software_now: 2,
            send_software: 66,
            receive_software: 65,
            rekeys: 7,
            ..TlsStat::default()
        };
        assert_eq!(parse(text), expected);
        assert_eq!(parse(""), TlsStat::default());
    }

    #[test]
    fn reading_answers_with_sums_or_says_that_there_is_no_tls() {
        if let Err(error) = read_tls_stat() {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}
