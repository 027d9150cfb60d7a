/**
 * `OptRecords`: the OPT records that a server puts into its answers
 * ([RFC 6891 section 6.1](https://www.rfc-editor.org/rfc/rfc6891#section-6.1)), encoded once.
 * @module
 */
import { DNSSEC_OK, encode, type OptAnswer } from 'dns-packet';

/** Holds one record for each combination of the fields that differ between answers. */
export class OptRecords {
  readonly #records: readonly Uint8Array[];

  /** @param udpPayloadSize the longest query that the server takes over UDP, in bytes. */
  constructor(udpPayloadSize: number) {
    this.#records = [0, 1].flatMap((extendedRcode) =>
      [0, DNSSEC_OK].map((flags) =>
        encodeOpt({ ...EMPTY_OPT, udpPayloadSize, extendedRcode, flags })
      )
    );
  }

  /**
   * Finds the record of an answer. It has the DO bit of the query although nothing is signed
   * (RFC 3225 section 3).
   *
   * @param rcode the whole response code, below 32; the record holds its upper bits.
   */
  find(rcode: number, dnssecOk: boolean): Uint8Array {
    return this.#records[(rcode >> 4) * 2 + (dnssecOk ? 1 : 0)]!;
  }
}

function encodeOpt(record: OptAnswer): Uint8Array {
  return encode({ additionals: [record] }).subarray(HEADER_LENGTH);
}

const EMPTY_OPT: OptAnswer = {
  type: 'OPT',
  name: '.',
  udpPayloadSize: 0,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: 0,
  flag_do: false,
  options: [],
};
const HEADER_LENGTH = 12;
