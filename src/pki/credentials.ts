/**
 * The key and certificates of a gateway, with the option names of `node:tls`.
 * @module
 */

/** What a gateway presents to its peers and verifies them with, as PEM texts. */
export interface Credentials {
  /** The private key: PKCS#8, not encrypted. */
  readonly key: string;
  /** The gateway's certificate, then the intermediates up to a trust anchor, without the anchor. */
  readonly cert: string;
  /** The trust anchors, one or more: a peer's certificate must lead to one of them. */
  readonly ca: string;
}
