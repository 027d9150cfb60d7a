import { afterEach, describe, expect, test, vi } from 'vitest';
import { parseProxy, proxyFor, proxyFromEnvironment } from '../../src/base/proxy.ts';
import { ConfigError } from '../../src/errors.ts';

const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;

describe('parseProxy', () => {
  test.each<[string, string, number, string | undefined]>([
    ['http://proxy.example.org:3128', 'proxy.example.org', 3128, undefined],
    ['http://proxy.example.org', 'proxy.example.org', 80, undefined],
    ['HTTP://192.0.2.1:8080/', '192.0.2.1', 8080, undefined],
    ['http://[2001:db8::1]:3128', '2001:db8::1', 3128, undefined],
    ['http://user:secret@proxy.test:3128', 'proxy.test', 3128, basic('user:secret')],
    ['http://user@proxy.test:3128', 'proxy.test', 3128, basic('user:')],
    ['http://us%40er:p%3Aa%2Fs@proxy.test', 'proxy.test', 80, basic('us@er:p:a/s')],
    ['http://j%C3%BCrg:%E2%82%AC@proxy.test', 'proxy.test', 80, basic('jürg:€')],
  ])('reads %s', (text, host, port, authorization) => {
    expect(parseProxy(text)).toEqual({ host, port, authorization });
  });

  test.each<[string, string]>([
    ['proxy.test:3128', 'its scheme is proxy.test'],
    ['', 'it is not a URL'],
    ['http://', 'it is not a URL'],
    ['http://proxy.test:99999', 'it is not a URL'],
    ['http://proxy.test:0', 'the port is 0'],
    ['https://secret:secret@proxy.test:3128', 'its scheme is https'],
    ['socks5://secret@proxy.test', 'its scheme is socks5'],
    ['http://secret@proxy.test/path', 'there is more behind the port'],
    ['http://proxy.test?secret', 'there is more behind the port'],
    ['http://sec%3Aret:secret@proxy.test', 'the user name contains a colon'],
    ['http://user:secret%0D%0A@proxy.test', 'the credentials contain a control character'],
    ['http://user:secret%FF@proxy.test', 'the credentials are not percent-encoded UTF-8'],
  ])('refuses %j without a word of the credentials', (text, reason) => {
    expect(() => parseProxy(text)).toThrow(
      new ConfigError('proxy', `expected http://[user:password@]host:port, but ${reason}`)
    );
    expect(reason).not.toContain('secret');
  });

  test.each([undefined, null, 3128, {}])('refuses %j of a plain JavaScript program', (value) => {
    if (value === undefined) expect(proxyFor(value, 'host', 443)).toBeUndefined();
    else expect(() => proxyFor(value as never, 'host', 443)).toThrow(ConfigError);
  });
});

describe('proxyFromEnvironment', () => {
  afterEach(() => vi.unstubAllEnvs());

  function environment(variables: Readonly<Record<string, string>>): void {
    for (const name of ['https_proxy', 'HTTPS_PROXY', 'no_proxy', 'NO_PROXY']) {
      vi.stubEnv(name, variables[name]);
    }
  }

  test.each<[string, Readonly<Record<string, string>>, string | undefined]>([
    ['nothing', {}, undefined],
    ['upper case', { HTTPS_PROXY: 'http://a:1' }, 'http://a:1'],
    [
      'lower case before upper case',
      { HTTPS_PROXY: 'http://a:1', https_proxy: 'http://b:2' },
      'http://b:2',
    ],
    ['an empty variable', { https_proxy: '', HTTPS_PROXY: 'http://a:1' }, 'http://a:1'],
    ['no scheme', { https_proxy: 'user:x@a:1' }, 'http://user:x@a:1'],
    ['an exemption', { https_proxy: 'http://a:1', NO_PROXY: 'cloud.test' }, undefined],
  ])('reads %s', (_, variables, expected) => {
    environment(variables);
    expect(proxyFromEnvironment('cloud.test', 7443)).toBe(expected);
  });

  test.each<[string, string, boolean]>([
    ['*', 'cloud.test', true],
    ['other.test, cloud.test', 'cloud.test', true],
    ['other.test cloud.test', 'Cloud.Test.', true],
    ['test', 'cloud.test', true],
    ['.cloud.test', 'cloud.test', true],
    ['.cloud.test', 'a.cloud.test', true],
    ['*.cloud.test', 'a.cloud.test', true],
    ['loud.test', 'cloud.test', false],
    ['cloud.test:7443', 'cloud.test', true],
    ['cloud.test:443', 'cloud.test', false],
    ['192.0.2.1', '192.0.2.1', true],
    ['192.0.2.1:443', '192.0.2.1', false],
    ['2.1', '192.0.2.1', false],
    ['192.0.2.0/24', '192.0.2.77', true],
    ['192.0.2.0/24', '192.0.3.77', false],
    ['192.0.2.0/99', '192.0.2.77', false],
    ['192.0.2.0/24', 'cloud.test', false],
    ['2001:db8::1', '2001:db8:0::1', true],
    ['[2001:db8::1]', '2001:db8::1', true],
    ['2001:db8::/32', '2001:db8:7::1', true],
    ['2001:db8::/32', '2001:db9::1', false],
    [' , ,', 'cloud.test', false],
  ])('NO_PROXY=%j exempts %s port 7443: %s', (list, host, isExempt) => {
    environment({ https_proxy: 'http://a:1', NO_PROXY: list });
    expect(proxyFromEnvironment(host, 7443) === undefined).toBe(isExempt);
  });
});
