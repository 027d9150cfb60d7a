/**
 * The options of `EtcdStore`.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { HostPort, HostPortInput } from '../base/host-port.ts';
import { HostPortSchema } from '../base/host-port-schema.ts';
import {
  checkClock,
  checkDuration,
  checkObject,
  checkText,
  checkThat,
} from '../base/option-check.ts';
import { parseSchema } from '../base/schema.ts';

/** What etcd is verified with over TLS, and what is presented to it, as PEM texts. */
export interface EtcdCredentials {
  /** The trust anchors, one or more: the certificate of each endpoint must lead to one of them and have its name. */
  readonly ca: string;
  /** The certificate for etcd's `--client-cert-auth`, then its intermediates; absent: none is presented. */
  readonly cert?: string;
  /** The private key of `cert`: PKCS#8, not encrypted; absent: none. */
  readonly key?: string;
}

export interface EtcdStoreOptions {
  /** The client endpoints of the members, one or more: `etcd-1.example.org:2379`. One is used until it fails. */
  readonly endpoints: readonly HostPortInput[];
  /** What all keys of this store begin with in etcd: `/vp/<cloud>/`. Two clouds have two prefixes. It ends with `/`. */
  readonly prefix: string;
  /**
   * Absent: connections without TLS, for loopback only. A function is called for the first connection, and again whenever
   * there is none, so that renewed credentials are used; while it throws, those before stay in use. A connection that stands
   * keeps its credentials.
   */
  readonly credentials?: EtcdCredentials | (() => EtcdCredentials);
  /** A user of etcd; absent: none, or the one that etcd takes from the common name of the certificate. */
  readonly user?: { readonly name: string; readonly password: string };
  /** How long a request may take, and how long a commit waits for a lost connection, in ms; default 5000. */
  readonly requestTimeoutMs?: number;
  /** Default: the system's. */
  readonly clock?: Clock;
}

/** The defaults of `EtcdStoreOptions`. */
export const ETCD_STORE_DEFAULTS: Readonly<{ requestTimeoutMs: number }> = Object.freeze({
  requestTimeoutMs: 5000,
});

export interface EtcdSettings {
  readonly endpoints: readonly HostPort[];
  readonly prefix: string;
  readonly credentials: EtcdCredentials | (() => EtcdCredentials) | undefined;
  readonly user: { readonly name: string; readonly password: string } | undefined;
  readonly requestTimeoutMs: number;
  readonly clock: Clock;
}

/** @throws {ApiMisuseError} if an option is invalid. */
export function resolveEtcdStore(options: EtcdStoreOptions): EtcdSettings {
  const { endpoints, prefix, credentials, user, requestTimeoutMs, clock } = checkObject(
    'the options of EtcdStore',
    options
  );
  const isList = Array.isArray(endpoints) && endpoints.length > 0;
  checkThat('endpoints', endpoints, isList, 'a list of one or more');
  checkText('prefix', prefix);
  checkThat('prefix', prefix, prefix.endsWith('/'), 'a text that ends with "/"');
  if (credentials !== undefined && typeof credentials !== 'function') checkCredentials(credentials);
  if (user !== undefined) {
    checkText('user.name', checkObject('user', user).name);
    checkText('user.password', user.password);
  }
  return {
    endpoints: endpoints.map((each, i) => parseSchema(HostPortSchema, each, `endpoints[${i}]`)),
    prefix,
    credentials: typeof credentials === 'function' ? checked(credentials) : credentials,
    user,
    requestTimeoutMs: checkDuration(
      'requestTimeoutMs',
      requestTimeoutMs ?? ETCD_STORE_DEFAULTS.requestTimeoutMs
    ),
    clock: checkClock(clock),
  };
}

/** Returns a function that throws too if what the other one returns is invalid. */
function checked(credentials: () => EtcdCredentials): () => EtcdCredentials {
  return () => {
    const present = credentials();
    checkCredentials(present);
    return present;
  };
}

function checkCredentials(credentials: EtcdCredentials): void {
  const { ca, cert, key } = checkObject('credentials', credentials);
  checkText('credentials.ca', ca);
  if (cert !== undefined) checkText('credentials.cert', cert);
  if (key !== undefined) checkText('credentials.key', key);
  const isPair = (cert === undefined) === (key === undefined);
  checkThat('credentials.key', key, isPair, 'given together with credentials.cert');
}
