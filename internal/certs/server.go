package certs

import "crypto/tls"

// Server is base for the listener that r is for: every handshake has the certificate that is in use then and, where roots are
// followed, those for the certificates of clients. What base says of tickets holds for all of them.
func (r *Reloader) Server(base *tls.Config) *tls.Config {
	base = base.Clone()
	base.GetCertificate = r.GetCertificate
	if r.cfg.CA == "" {
		return base
	}
	base.ClientCAs = r.Pool()
	each := base.Clone()
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := each.Clone()
		c.ClientCAs = r.Pool()
		return c, nil
	}
	return base
}
