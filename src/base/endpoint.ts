/**
 * Endpoints as values. An address means a host only within its realm.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';
import { type AddressInput, IpAddress } from './address.ts';
import { inspectAsText } from './inspect.ts';

/** An endpoint as a caller gives it: the value, or a realm and an address as text. */
export interface EndpointInput {
  readonly realm: string;
  readonly address: AddressInput;
}

/** A real host: an address and the realm in which it means that host. It is immutable. */
export class Endpoint {
  static {
    inspectAsText(Endpoint);
  }

  readonly realm: string;
  readonly address: IpAddress;
  #key: string | undefined;

  constructor(realm: string, address: IpAddress) {
    this.realm = realm;
    this.address = address;
  }

  /**
   * Parses the text of `key`.
   *
   * @throws {ApiMisuseError} if the text is not a realm and an address with a slash between them.
   */
  static parse(text: string): Endpoint {
    const slash = text.indexOf('/');
    if (slash <= 0) throw new ApiMisuseError(`"${text}" is not a realm and an address`);
    const endpoint = new Endpoint(text.slice(0, slash), IpAddress.parse(text.slice(slash + 1)));
    // Stored text is the key itself, and need not be kept twice.
    if (endpoint.key === text) endpoint.#key = text;
    return endpoint;
  }

  /**
   * Returns the endpoint that a caller gives as a value or as texts.
   *
   * @throws {ApiMisuseError} if its address is a text that is not one.
   */
  static from(input: EndpointInput): Endpoint {
    if (input instanceof Endpoint) return input;
    return new Endpoint(input.realm, IpAddress.from(input.address));
  }

  /** `<realm>/<address>`, the same text for equal endpoints. */
  get key(): string {
    this.#key ??= `${this.realm}/${this.address}`;
    return this.#key;
  }

  /** Returns the key. */
  toString(): string {
    return this.key;
  }
}
