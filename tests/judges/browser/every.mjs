// Every page is looked at in both themes and in both widths: four looks. Two of them, which hold each theme and each
// width once, are examined by all rules; the other two by those whose verdict depends on the theme and the
// width together. What the others judge (names, roles, order, labels) is the same page in all four.
import { PHONE, WIDE } from "./lib.mjs";

const OF_THE_LOOK = ["color-contrast", "link-in-text-block", "scrollable-region-focusable"];

export const LOOKS = [
  { name: "light", theme: "light", viewport: WIDE },
  { name: "dark", theme: "dark", viewport: WIDE, rules: OF_THE_LOOK },
  { name: "dark-phone", theme: "dark", viewport: PHONE },
  { name: "light-phone", theme: "light", viewport: PHONE, rules: OF_THE_LOOK },
];

/** The looks of which pictures are taken. */
const PICTURED = ["light", "dark-phone"];

/** Examines the page that stands there in every look, and takes two pictures of it where they are wanted. */
export async function everyLook(t, page, name, { picture = false, window = false } = {}) {
  for (const look of LOOKS) {
    await page.emulateMedia({ colorScheme: look.theme });
    await page.setViewportSize(look.viewport);
    await t.examine(page, `${name}, ${look.name}`, look.rules);
    if (picture && PICTURED.includes(look.name)) await t.picture(page, `${name}-${look.name}`, { fullPage: !window });
  }
}
