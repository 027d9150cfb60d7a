/**
 * The errors that the control side throws, grouped by the party at fault. A packet never causes one: on the data path
 * the outcome is a counted `Verdict`.
 *
 * Test `error.code`, which is stable, not the class or the message. Messages are lower case, without a full stop, and
 * contain the wrong value.
 * @module
 */

/** The base class of all errors that this library throws on purpose. */
export class PresenceError extends Error {
  /** A stable identifier, `ERR_PRESENCE_...`. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** The calling program is at fault: an argument, or the order of calls, can never succeed. */
export class ApiMisuseError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_API_MISUSE', message, options);
  }
}

/** The operator is at fault: a value of the configuration or of the desired state is not usable. */
export class ConfigError extends PresenceError {
  /** The place of the fault, for example `sites[0].pool`; empty if it concerns the whole. */
  readonly path: string;

  constructor(path: string, message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_CONFIG', path === '' ? message : `${path}: ${message}`, options);
    this.path = path;
  }
}

/** The operator names something that is not there. */
export class NotFoundError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_NOT_FOUND', message, options);
  }
}

/** The request contradicts what is there: another owner keeps the record, or other records need it. */
export class ConflictError extends PresenceError {
  /** The place of the fault in what was given, for example `sites[0]`; empty if it concerns the whole. */
  readonly path: string;

  /** @param path see the property; default '' */
  constructor(message: string, path = '', options?: ErrorOptions) {
    super('ERR_PRESENCE_CONFLICT', path === '' ? message : `${path}: ${message}`, options);
    this.path = path;
  }
}

/** A record has not the version that the caller expects, because somebody else has changed it. */
export class VersionMismatchError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_VERSION_MISMATCH', message, options);
  }
}

/** A pool, lease or reservation does not allow the request. */
export class AllocatorError extends PresenceError {}

/** Every address of the pool is leased, reserved or in quarantine. */
export class PoolExhaustedError extends AllocatorError {
  constructor(message: string) {
    super('ERR_PRESENCE_POOL_EXHAUSTED', message);
  }
}

/** The requested address belongs to another key, or is not in the pool. */
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

/** The store cannot be read or written, or its content is damaged. */
export class StoreError extends PresenceError {
  /** @param code default `ERR_PRESENCE_STORE` */
  constructor(message: string, options?: ErrorOptions, code: string = 'ERR_PRESENCE_STORE') {
    super(code, message, options);
  }
}

/** The server of the store cannot be reached or does not answer now. Nothing was written: try it again later. */
export class StoreUnavailableError extends StoreError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options, 'ERR_PRESENCE_STORE_UNAVAILABLE');
  }
}

/** The store has other data than when it was opened, because it was restored from a backup, for example. */
export class StoreReplacedError extends StoreError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options, 'ERR_PRESENCE_STORE_REPLACED');
  }
}

/** The server of the store has not answered a commit: its writes may be applied, also later. */
export class StoreDoubtError extends StoreError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options, 'ERR_PRESENCE_STORE_DOUBT');
  }
}

/** Another writer changed an entry first; read it again and retry. */
export class StoreConflictError extends PresenceError {
  constructor(message: string) {
    super('ERR_PRESENCE_STORE_CONFLICT', message);
  }
}

/** An audit log was changed after it was written; nothing is appended to it. */
export class AuditError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_AUDIT', message, options);
  }
}

/** The other gateway violated the protocol. */
export class PeerProtocolError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_PEER_PROTOCOL', message, options);
  }
}

/** The other gateway refused the request; `message` contains its reason. */
export class PeerRefusedError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_PEER_REFUSED', message, options);
  }
}

/** The last snapshot of an edge has expired, because the edge had no contact with its cloud for too long. */
export class SnapshotExpiredError extends PresenceError {
  readonly lastContact: Date;

  constructor(site: string, lastContact: Date, validMs: number) {
    super(
      'ERR_PRESENCE_SNAPSHOT_EXPIRED',
      `the snapshot of ${site} has expired: the last contact with the cloud, at ${lastContact.toISOString()}, is longer ago than snapshotValidMs (${validMs} ms); its names and presences are stopped and come back with the tunnel: find out why there is no tunnel, or start the edge with a longer snapshotValidMs`
    );
    this.lastContact = lastContact;
  }
}

/** A certificate, signing request or key cannot be used. */
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
  /** The token is valid and stays valid, but the host program of the cloud gateway refuses the site. */
  | 'not-authorized';

/** An enrolment token is not valid, or no longer valid. */
export class EnrolmentError extends PresenceError {
  readonly fault: EnrolmentFault;

  constructor(fault: EnrolmentFault, message: string, options?: ErrorOptions) {
    super(`ERR_PRESENCE_ENROLMENT_${fault.toUpperCase().replace('-', '_')}`, message, options);
    this.fault = fault;
  }
}

/** The machine is at fault: a port is in use, a device cannot be opened, a file cannot be read. */
export class EnvironmentError extends PresenceError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_ENVIRONMENT', message, options);
  }
}

/** A capture cannot be used: it is cut, damaged, empty, or in a format or of a kind that is not supported. */
export class CaptureError extends PresenceError {
  /** The byte of the file at which the fault is. */
  readonly offset: number;

  /** @param message what is wrong, and what to do */
  constructor(offset: number, message: string) {
    super('ERR_PRESENCE_CAPTURE', message);
    this.offset = offset;
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
  /** It requires credentials, and none were given. */
  | 'credentials-missing'
  /** It does not accept the credentials that were given. */
  | 'credentials-refused'
  /** It refuses the endpoint. */
  | 'refused'
  /** It reports that it cannot reach the endpoint. */
  | 'endpoint-unreachable'
  /** Its answer is not HTTP, or is too long. */
  | 'protocol';

/** An HTTP proxy gives no connection to the endpoint behind it. The message never contains the password. */
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
