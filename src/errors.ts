/**
 * The errors that the control side throws, grouped by who is at fault. Packets never raise one:
 * on the data path the outcome is a counted `Verdict`.
 *
 * Test `error.code`, which is stable, rather than the class or the message. Messages are lower
 * case, without a full stop, and carry the value that was wrong.
 * @module
 */

/** Base class of everything this library throws on purpose. */
export class PresenceError extends Error {
  /** Stable identifier, `ERR_PRESENCE_...`. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** The calling program is at fault: an argument or a call order that can never succeed. */
export class ApiMisuseError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_API_MISUSE', message, options);
  }
}

/** The operator is at fault: a value of the configuration or of the desired state is unusable. */
export class ConfigError extends PresenceError {
  /** Where the fault is, for example `sites[0].pool`; empty when it concerns the whole. */
  readonly path: string;

  constructor(path: string, message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_CONFIG', path === '' ? message : `${path}: ${message}`, options);
    this.path = path;
  }
}

/** A pool, lease or reservation does not allow what was asked. */
export class AllocatorError extends PresenceError {}

/** Every address of the pool is leased, reserved or in quarantine. */
export class PoolExhaustedError extends AllocatorError {
  constructor(message: string) {
    super('ERR_PRESENCE_POOL_EXHAUSTED', message);
  }
}

/** The address asked for belongs to another key, or is not one the pool hands out. */
export class AddressUnavailableError extends AllocatorError {
  constructor(message: string) {
    super('ERR_PRESENCE_ADDRESS_UNAVAILABLE', message);
  }
}

/** A quota of one site is used up, for example the number of its client presences. */
export class QuotaExceededError extends AllocatorError {
  constructor(message: string) {
    super('ERR_PRESENCE_QUOTA_EXCEEDED', message);
  }
}

/** The store could not keep, or did not find as expected, what it was given. */
export class StoreError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_STORE', message, options);
  }
}

/** Another writer changed an entry first; read it again and decide anew. */
export class StoreConflictError extends PresenceError {
  constructor(message: string) {
    super('ERR_PRESENCE_STORE_CONFLICT', message);
  }
}

/** An audit log is not the one that was written; nothing is appended to it. */
export class AuditError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_AUDIT', message, options);
  }
}

/** The far gateway broke the protocol. */
export class PeerProtocolError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_PEER_PROTOCOL', message, options);
  }
}

/** The far gateway understood and said no; `message` carries its reason. */
export class PeerRefusedError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_PEER_REFUSED', message, options);
  }
}

/** A certificate, signing request or key is not acceptable. */
export class CertificateError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_CERTIFICATE', message, options);
  }
}

/** Why an enrolment was refused. */
export type EnrolmentFault =
  | 'missing'
  | 'malformed'
  | 'unknown'
  | 'expired'
  | 'used'
  | 'wrong-ca'
  | 'wrong-site'
  /** The token is good and stays so, but the host of the cloud gateway does not let the site in. */
  | 'not-authorized';

/** An enrolment token is not, or no longer, good for a certificate. */
export class EnrolmentError extends PresenceError {
  readonly fault: EnrolmentFault;

  constructor(fault: EnrolmentFault, message: string, options?: ErrorOptions) {
    super(`ERR_PRESENCE_ENROLMENT_${fault.toUpperCase().replace('-', '_')}`, message, options);
    this.fault = fault;
  }
}

/** The machine is at fault: a port is busy, a device cannot be opened, a file cannot be read. */
export class EnvironmentError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_ENVIRONMENT', message, options);
  }
}

/** Why encrypted secrets cannot be read. */
export type PassphraseFault =
  /** They are encrypted, and no passphrase was given. */
  | 'missing'
  /** They are encrypted under another passphrase. */
  | 'wrong';

/** Secrets are encrypted at rest and cannot be read; nothing was changed. */
export class PassphraseError extends PresenceError {
  readonly fault: PassphraseFault;

  constructor(fault: PassphraseFault, message: string) {
    super(`ERR_PRESENCE_PASSPHRASE_${fault.toUpperCase()}`, message);
    this.fault = fault;
  }
}

/** Why an HTTP proxy gives no connection to the endpoint behind it. */
export type ProxyFault =
  /** It cannot be reached, or it ends the connection before it has answered. */
  | 'unreachable'
  /** It asks for credentials, and none were given. */
  | 'credentials-missing'
  /** It does not accept the credentials that were given. */
  | 'credentials-refused'
  /** It refuses the endpoint. */
  | 'refused'
  /** It says that it cannot reach the endpoint. */
  | 'endpoint-unreachable'
  /** What it answers is not HTTP, or is longer than is read. */
  | 'protocol';

/** An HTTP proxy gives no connection to the endpoint behind it. The message never holds the password. */
export class ProxyError extends PresenceError {
  readonly fault: ProxyFault;
  /** The status of the proxy's answer; undefined if there was none. */
  readonly status: number | undefined;

  constructor(
    fault: ProxyFault,
    message: string,
    options?: ErrorOptions & {
      /** Default: there was no answer. */
      readonly status?: number | undefined;
    }
  ) {
    super(`ERR_PRESENCE_PROXY_${fault.toUpperCase().replaceAll('-', '_')}`, message, options);
    this.fault = fault;
    this.status = options?.status;
  }
}
