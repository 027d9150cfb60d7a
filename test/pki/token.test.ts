import { describe, expect, test } from 'vitest';
import { parseToken } from '../../src/pki/index.ts';
import { formatToken } from '../../src/pki/token.ts';

const TOKEN = {
  endpoints: ['https://198.51.100.1:7444', 'https://[2001:db8::1]:7444', 'https://gw.example.org'],
  caSpkiHash: 'A'.repeat(43),
  trustDomain: 'example.org',
  site: 'site-a',
  id: 'B'.repeat(22),
  secret: 'C'.repeat(43),
};
const text = (json: unknown) =>
  `vp1.${Buffer.from(typeof json === 'string' ? json : JSON.stringify(json)).toString('base64url')}`;

describe('token', () => {
  test('reads what it has written, with white space around it', () => {
    expect(parseToken(`\n ${formatToken(TOKEN)} \n`)).toEqual(TOKEN);
  });

  test.each<[string, string]>([
    ['nothing', ''],
    ['no version', text(TOKEN).slice(4)],
    ['a later version', text(TOKEN).replace('vp1', 'vp2')],
    ['a truncated token', text(TOKEN).slice(0, -9)],
    ['characters that are not base64url', `${text(TOKEN)}+`],
    ['text that is not JSON', text('{')],
    ['null', text(null)],
    ['more than 4 KiB', text({ ...TOKEN, site: 'a'.repeat(5000) })],
    ['100 MB', 'vp1.'.padEnd(1e8, 'A')],
    ['an unknown field', text({ ...TOKEN, more: 1 })],
    ['no endpoint', text({ ...TOKEN, endpoints: [] })],
    ['nine endpoints', text({ ...TOKEN, endpoints: Array(9).fill('https://a') })],
    ['an http endpoint', text({ ...TOKEN, endpoints: ['http://a'] })],
    ['an endpoint with a path', text({ ...TOKEN, endpoints: ['https://a/b'] })],
    ['an endpoint with a user', text({ ...TOKEN, endpoints: ['https://a@b'] })],
    ['an endpoint with port 65536', text({ ...TOKEN, endpoints: ['https://a:65536'] })],
    ['a short pin', text({ ...TOKEN, caSpkiHash: 'A' })],
    ['a short secret', text({ ...TOKEN, secret: 'A' })],
    ['an id that leaves its folder', text({ ...TOKEN, id: '../certificate/00000000' })],
    ['a site that is none', text({ ...TOKEN, site: 'A B' })],
    ['a trust domain that is none', text({ ...TOKEN, trustDomain: 'a..b' })],
  ])('refuses %s as malformed', (_, token) => {
    expect(() => parseToken(token)).toThrow(
      expect.objectContaining({ code: 'ERR_PRESENCE_ENROLMENT_MALFORMED', fault: 'malformed' })
    );
  });

  test('has no secret in the error for a damaged token', () => {
    const damaged = text(JSON.stringify(TOKEN).slice(0, -1));
    try {
      parseToken(damaged);
      expect.unreachable();
    } catch (error) {
      expect(String((error as Error).stack)).not.toContain('CCC');
      expect((error as Error).cause).toBeUndefined();
    }
  });

  test.each([
    ['no endpoints', []],
    ['nine endpoints', Array(9).fill('https://a')],
    ['an endpoint that is not https', ['http://a']],
    ['endpoints too long for a token', Array(8).fill(`https://${'a'.repeat(600)}`)],
  ])('refuses to write a token for %s', (_, endpoints) => {
    expect(() => formatToken({ ...TOKEN, endpoints })).toThrow(
      expect.objectContaining({ code: 'ERR_PRESENCE_API_MISUSE' })
    );
  });
});
