/**
 * Every case of the corpus against the translator of this repository, and the corpus against itself.
 * @module
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  PacketTranslator,
  TRANSLATION_HEADROOM,
  VERDICT_NAMES,
} from '../../src/translator/index.ts';
import { type Case, type Expectation, type Step, type Subject, textOf } from './corpus.ts';
import { fileOf, subjects } from './generate.ts';
import { faultsOf } from './verify.ts';

const VNET = 10;
const AROUND = 64;
const CANARY = 0xa5;

const generated = subjects();
const stored: readonly Subject[] = generated.map((subject) =>
  JSON.parse(readFileSync(fileOf(subject), 'utf8'))
);

describe('corpus', () => {
  test.each(generated.map((subject) => [subject.subject, subject] as const))(
    '%s.json is what generate.ts makes',
    (_, subject) => {
      expect(readFileSync(fileOf(subject), 'utf8')).toBe(textOf(subject));
    }
  );

  test.each(stored.map((subject) => [subject.subject, subject] as const))(
    '%s: names are unique, plans exist, and every case cites something and agrees with itself',
    (_, { cases, plans }) => {
      const names = cases.map(({ name }) => name);
      expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
      const used = cases.flatMap(({ plan, steps }) => [
        plan,
        ...steps.flatMap(({ load }) => load ?? []),
      ]);
      expect([...new Set(used)].sort()).toEqual(Object.keys(plans).sort());
      expect(cases.flatMap(faultsOf)).toEqual([]);
    }
  );

  test('there are at least 250 cases', () => {
    expect(stored.flatMap(({ cases }) => cases).length).toBeGreaterThanOrEqual(250);
  });
});

for (const { subject, cases, plans } of stored) {
  describe(subject, () => {
    test.each(cases.map((one) => [one.name, one] as const))('%s', (_, one) => {
      expect(run(one, plans)).toEqual(one.steps.map(({ expect: wanted }) => comparable(wanted)));
    });
  });
}

/** What became of each step’s packet, in the words of the corpus. */
function run({ plan, options, steps }: Case, plans: Subject['plans']): Expectation[] {
  const translator = new PacketTranslator(options);
  translator.load(plans[plan]!);
  translator.advance(0);
  return steps.map((step) => {
    if (step.load !== undefined) translator.load(plans[step.load]!);
    if (step.at !== undefined) translator.advance(step.at);
    return send(translator, step);
  });
}

function send(translator: PacketTranslator, step: Step): Expectation {
  const packet = Buffer.from(step.packet, 'hex');
  const header = Buffer.from(step.vnet ?? '', 'hex');
  const headroom = step.headroom ?? TRANSLATION_HEADROOM;
  const first = AROUND + headroom;
  const start = first + header.length;
  const end = start + packet.length;
  const before = new Uint8Array(end + AROUND).fill(CANARY);
  before.set(header, first);
  before.set(packet, start);
  const buffer = before.slice();

  const realm = translator.realm(step.realm);
  const vnet = step.vnet === undefined ? -1 : first;
  const number = translator.translate(realm, buffer, start, end, vnet, headroom);
  const verdict = VERDICT_NAMES[number]!;

  const isForward = verdict === 'Forward';
  expect(hexOf(buffer.subarray(0, AROUND)), 'in front of the headroom').toBe(
    hexOf(before.subarray(0, AROUND))
  );
  expect(hexOf(buffer.subarray(end)), 'behind the packet').toBe(hexOf(before.subarray(end)));
  if (!isForward) expect(hexOf(buffer), 'a packet that is not forwarded').toBe(hexOf(before));

  const { replyLength } = translator;
  const reply = translator.reply?.subarray(0, replyLength);
  if (!isForward && verdict !== 'NeedsPresence' && verdict !== 'NeedsHeadroom' && replyLength > 0) {
    expect(hexOf(reply!.subarray(0, VNET)), 'the virtio-net header of a reply').toBe(
      '00'.repeat(VNET)
    );
  }
  return comparable({
    verdict,
    ...(isForward || verdict === 'NeedsPresence'
      ? { egress: translator.realmName(translator.egress) }
      : {}),
    ...(verdict === 'NeedsPresence' ? { lackingFamily: translator.lackingFamily } : {}),
    ...(isForward
      ? {
          packet: hexOf(buffer.subarray(translator.start, translator.end)),
          segmentTo: translator.segmentTo,
          ...(step.vnet === undefined
            ? {}
            : { vnet: hexOf(buffer.subarray(translator.vnet, translator.vnet + VNET)) }),
        }
      : {}),
    ...(verdict.startsWith('Drop') && replyLength > 0
      ? { reply: hexOf(reply!.subarray(VNET)) }
      : {}),
  });
}

/** Removes what is not compared, and adds what an absent field means. */
function comparable(expectation: Expectation): Expectation {
  const { verdict, vnet } = expectation;
  const isForward = verdict === 'Forward';
  return {
    ...expectation,
    ...(isForward ? { segmentTo: expectation.segmentTo ?? 0 } : {}),
    ...(vnet === undefined ? {} : { vnet: meaningful(vnet) }),
  };
}

/** `csum_start` and `csum_offset` mean nothing without NEEDS_CSUM. */
function meaningful(vnet: string): string {
  const needsChecksum = (Number.parseInt(vnet.slice(0, 2), 16) & 1) !== 0;
  return needsChecksum ? vnet : `${vnet.slice(0, 12)}00000000`;
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
