/**
 * The groups in which the two sides of a TLS connection may agree on a key
 * ([RFC 8446 section 4.2.7](https://www.rfc-editor.org/rfc/rfc8446#section-4.2.7)). Every TLS connection of this
 * library is limited to these: the default of Node also allows groups of older and slower kinds.
 * @module
 */
import { createSecureContext, type TLSSocket } from 'node:tls';

/**
 * The groups, the best first. X25519MLKEM768 also withstands a quantum computer
 * ([draft-ietf-tls-ecdhe-mlkem](https://datatracker.ietf.org/doc/draft-ietf-tls-ecdhe-mlkem/)); OpenSSL has it from
 * version 3.5 on.
 */
export const KEY_EXCHANGE_GROUPS = ['X25519MLKEM768', 'X25519', 'P-256'] as const;

export type KeyExchangeGroup = (typeof KEY_EXCHANGE_GROUPS)[number];

/**
 * Returns those of the groups that this process has, for Node's option `ecdhCurve`. The option has to be given with each
 * secure context: a server that is given a context without it falls back to the default of Node.
 */
export function keyExchangeGroups(): string {
  groups ??= LISTS.find(isAccepted) ?? LAST_LIST;
  return groups;
}

/**
 * Returns the group that a connection uses, on the side that dialled it. Node tells the listening side nothing, so
 * there it is undefined. The connection must have been made with `keyExchangeGroups`.
 */
export function keyExchangeOf(socket: TLSSocket): KeyExchangeGroup | undefined {
  const info = socket.getEphemeralKeyInfo();
  if (info === null) return undefined;
  // Node 22 has no name for a group that is not a curve, and this one is the only such group that is allowed.
  const name = 'name' in info ? info.name : 'X25519MLKEM768';
  return KEY_EXCHANGE_GROUPS.find((group) => (NAMES_OF_NODE[group] ?? group) === name);
}

/** Node throws for the whole list if OpenSSL lacks one of its groups. */
function isAccepted(list: string): boolean {
  try {
    createSecureContext({ ca: [], ecdhCurve: list });
    return true;
  } catch {
    return false;
  }
}

let groups: string | undefined;

const LAST_LIST = 'P-256';
/**
 * In the form of
 * [SSL_CTX_set1_groups_list](https://docs.openssl.org/3.5/man3/SSL_CTX_set1_curves/). OpenSSL 3.5 sends a key share for
 * each group with a star, so that a server without the first group needs no second round trip; a server asks for what
 * stands in front of the slash if the client has it, even when the client has begun with another group.
 */
const LISTS: readonly string[] = ['*X25519MLKEM768/*X25519:P-256', 'X25519:P-256'];
const NAMES_OF_NODE: Partial<Record<KeyExchangeGroup, string>> = { 'P-256': 'prime256v1' };
