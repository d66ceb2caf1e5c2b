// Every page is looked at in both themes and in both widths: four looks, each by all of axe's rules.
import { PHONE, WIDE } from "./lib.mjs";

export const LOOKS = [
  { name: "light", theme: "light", viewport: WIDE },
  { name: "dark", theme: "dark", viewport: WIDE },
  { name: "dark-phone", theme: "dark", viewport: PHONE },
  { name: "light-phone", theme: "light", viewport: PHONE },
];

/** The looks of which pictures are taken. */
const PICTURED = ["light", "dark-phone"];

/** Examines the page that stands there in every look, and takes two pictures of it where they are wanted. */
export async function everyLook(t, page, name, { picture = false, window = false } = {}) {
  for (const look of LOOKS) {
    await page.emulateMedia({ colorScheme: look.theme });
    await page.setViewportSize(look.viewport);
    await t.examine(page, `${name}, ${look.name}`);
    if (picture && PICTURED.includes(look.name)) await t.picture(page, `${name}-${look.name}`, { fullPage: !window });
  }
}
