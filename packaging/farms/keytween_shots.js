// SPDX-License-Identifier: Apache-2.0
// Keytween as a custom job type of Flamenco 3: one task for each shot of a shots file.
// Put this file into the folder `scripts` beside Flamenco Manager, and define the variable `keytween` in
// flamenco-manager.yaml as the command, for example /opt/keytween/bin/keytween.
// A task that is run again does only what is missing. For one shot per GPU, run one worker for each GPU.

const JOB_TYPE = {
    label: "Keytween Shots",
    description: "Make the in-betweens of every shot in a shots file.",
    settings: [
        {
            key: "shots_file", type: "string", subtype: "file_path", required: true, visible: "submission",
            description: "The shots file (TOML, CSV or OpenTimelineIO), on a disk that the workers share",
        },
        {
            key: "shots", type: "string", required: true, visible: "submission",
            description: "The shots by name, separated by commas, or their places from 0, such as 0-199",
        },
        {
            key: "output", type: "string", subtype: "dir_path", required: false, visible: "submission", default: "",
            description: "Folder for everything; nothing for the file's own",
        },
    ],
};

function compileJob(job) {
    const settings = job.settings;
    for (const shot of chosenShots(settings.shots)) {
        const task = author.Task("shot " + shot.label, "misc");
        const args = ["shot", settings.shots_file].concat(shot.args);
        if (settings.output) {
            args.push("--output", settings.output);
        }
        task.addCommand(author.Command("exec", { exe: "{keytween}", args: args }));
        job.addTask(task);
    }
}

// "0-3" counts shots by their place in the file; anything else names them.
function chosenShots(text) {
    const range = /^\s*(\d+)\s*-\s*(\d+)\s*$/.exec(text);
    if (!range) {
        return text.split(",").map(function (name) { return name.trim(); }).filter(Boolean)
            .map(function (name) { return { label: name, args: [name] }; });
    }
    const found = [];
    for (let index = Number(range[1]); index <= Number(range[2]); index++) {
        found.push({ label: String(index), args: ["--index", String(index)] });
    }
    return found;
}
