/**
 * What a gateway shows, and what it checks its peers against: the shape that `node:tls` takes.
 * @module
 */

/** PEM texts. */
export interface Credentials {
  /** The private key: PKCS#8, not encrypted. */
  readonly key: string;
  /** The gateway's certificate, then what leads from it to a trust anchor; no anchor. */
  readonly cert: string;
  /** The trust anchors, one or more: the root that a peer's certificate must lead to is one of them. */
  readonly ca: string;
}
