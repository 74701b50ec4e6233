package broker

import "crypto/tls"

// insecure is what a client without a key to compare connects with.
func insecure() *tls.Config {
	return &tls.Config{NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}
}
