/** Paths page by page: all of them, whatever the size of the page, and no page that costs all. */
import { describe, expect, test } from 'vitest';
import type { PathPage, PathQuery, PathStatus } from '../../src/translator/index.ts';
import { pathPageOf } from '../../src/translator/path-page.ts';
import type { Paths } from '../../src/translator/paths.ts';
import { tcpPacket } from '../support/packets.ts';
import { FAMILIES, pathOf, Scene } from './scene.ts';

/** A scene in which requests of both sites have passed, of both IP versions. */
function usedScene(): Scene {
  const scene = new Scene();
  const ports = { sourcePort: 49_500, destinationPort: 5672 };
  for (const family of FAMILIES) {
    for (const site of ['site-a', 'site-b'] as const) {
      scene.forward(site, tcpPacket(pathOf(family, site, 'cloud').before, ports));
    }
  }
  return scene;
}

/** Reads all pages; `between` is called after each. */
function all(
  page: (query: PathQuery) => PathPage,
  query: PathQuery,
  between: () => void = () => {}
): PathStatus[] {
  const found: PathStatus[] = [];
  let after: number | undefined;
  do {
    const { paths, next } = page({ ...query, after });
    expect(paths.length).toBeLessThanOrEqual(query.limit);
    found.push(...paths);
    after = next;
    between();
  } while (after !== undefined);
  return found;
}

const textsOf = (paths: Iterable<PathStatus>): string[] =>
  Array.from(paths, (path) => Object.values(path).join(' ')).sort();

describe('paths', () => {
  test.each([1, 2, 3, 4, 100])('are all on the pages of %d', (limit) => {
    const { translator } = usedScene();
    const page = (query: PathQuery) => translator.pathPage(query);
    const expected = textsOf(translator.paths());
    expect(expected).toHaveLength(4);
    expect(textsOf(all(page, { limit }))).toEqual(expected);
    const ofA = expected.filter((text) => text.includes('site-a'));
    expect(textsOf(all(page, { limit, realm: 'site-a' }))).toEqual(ofA);
    expect(textsOf(all(page, { limit, realm: 'cloud' }))).toEqual(expected);
    expect(all(page, { limit, realm: 'nowhere' })).toEqual([]);
  });

  test('that stay are not missed when others go meanwhile', () => {
    const { translator } = usedScene();
    const stay = textsOf(translator.paths()).filter((text) => text.includes('site-a'));
    const gone = { realms: [{ name: 'site-b', realm: undefined }] };
    const found = all(
      (query) => translator.pathPage(query),
      { limit: 1 },
      () => void translator.apply(gone)
    );
    expect(textsOf(found)).toEqual(expect.arrayContaining(stay));
  });

  test('that are left out end a page, so that it does not cost all', () => {
    let looked = 0;
    const table = (size: number) => ({
      size,
      stride: 1,
      words: new Int32Array(size),
      routeOf: () => 0,
      packets: () => ++looked,
    });
    const paths = {
      v4: table(25_000),
      v6: table(0),
      routes: { words: new Int32Array(10) },
    } as unknown as Paths;
    let pages = 0;
    const page = (query: PathQuery) => {
      pages++;
      return pathPageOf(paths, query, 7, String);
    };
    expect(page({ limit: 10 })).toEqual({ paths: [], next: 15_000 });
    expect(looked).toBe(10_000);
    expect(all(page, { limit: 10 })).toEqual([]);
    expect(pages).toBe(1 + 3);
  });
});
