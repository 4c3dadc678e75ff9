;;; test-queue.el --- smtpmail's queue and the spool  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'rs-smtpmail-queue)

(defun test-queue-mail (header &optional body send)
  "Queue a mail of HEADER and BODY by SEND, default `rs-smtpmail-send-it'."
  (let ((smtpmail-queue-mail t))
    (test-send (or send #'rs-smtpmail-send-it) header body)))

(defun test-queue-file (name)
  "Return the absolute name of the file NAME in the queue."
  (expand-file-name name smtpmail-queue-dir))

(defun test-queue-files ()
  "Return the names of the files in the queue, but for the index."
  (remove "index" (directory-files smtpmail-queue-dir nil "\\`[^.]")))

(defun test-queue-index ()
  "Return the text of the index."
  (test-bytes (test-queue-file "index")))

(defun test-queue-write (name elisp message)
  "Write a queued message NAME with the contents ELISP and MESSAGE."
  (make-directory smtpmail-queue-dir t)
  (let ((coding-system-for-write 'utf-8-unix))
    (when elisp
      (write-region elisp nil (test-queue-file (concat name ".el")) nil 'silent))
    (when message
      (write-region message nil (test-queue-file name) nil 'silent))))

(defun test-queue-write-index (&rest lines)
  "Make an index of LINES."
  (write-region (mapconcat (lambda (line) (concat line "\n")) lines "")
                nil (test-queue-file "index") nil 'silent))

(defun test-flush ()
  "Send queued mail and wait."
  (let ((rs-smtpmail-synchronous t)
        (create-lockfiles nil))
    (rs-smtpmail-send-queued-mail)))

(defun test-stored-recipients (&rest addresses)
  "Return what smtpmail stores for ADDRESSES."
  (format "(setq      smtpmail-recipient-address-list %S\n)\n" addresses))

(ert-deftest test-queue-format-is-smtpmails ()
  (test-with-server nil
    (test-queue-mail (test-header "To: Friends: a@x.org, \"b c\"@y.org;"
                                  "Bcc: secret@z.org")
                     "Grüße\n")
    (should (= 0 (test-received-count)))
    (should (= 2 (length (test-queue-files))))
    (should-not (rs-smtp-queue-list))
    (let ((file (test-queue-file (car (test-queue-files)))))
      (should (equal (test-queue-index) (concat file "\n")))
      (should (equal (rs-smtpmail--stored-values (concat file ".el"))
                     '((smtpmail-recipient-address-list
                        "a@x.org" "\"b c\"@y.org" "secret@z.org"))))
      (should-not (string-search "z.org" (test-bytes file))))
    ;; smtpmail itself can send it.
    (setq test-foreign-connections '(1))
    (let ((smtpmail-stream-type 'plain)) (smtpmail-send-queued-mail))
    (should (equal '("a@x.org" "\"b c\"@y.org" "secret@z.org")
                   (plist-get (test-received 1) :recipients)))))

(ert-deftest test-queue-adoption ()
  (test-with-server nil
    (test-queue-mail (test-header "To: a@x.org" "Bcc: b@x.org") "Grüße\n")
    ;; One that smtpmail has queued.
    (test-queue-mail (test-header "To: c@x.org" "From: other@example.net") "Zwei\n"
                     #'smtpmail-send-it)
    (test-flush)
    (should (equal '("a@x.org" "b@x.org") (plist-get (test-received 1) :recipients)))
    (should (string-suffix-p (encode-coding-string "\r\n\r\nGrüße\r\n" 'utf-8)
                             (plist-get (test-received 1) :bytes)))
    (should (equal "me@example.org" (plist-get (test-received 1) :sender)))
    (should (equal "other@example.net" (plist-get (test-received 2) :sender)))
    (should-not (test-queue-files))
    (should (equal "" (test-queue-index)))
    (should-not (rs-smtp-queue-list))
    (test-flush)
    (should (= 2 (test-received-count)))))

(ert-deftest test-queue-stored-variables ()
  "They say where their message goes, and no other."
  (test-with-server nil
    (let ((smtpmail-store-queue-variables t))
      (test-queue-mail (test-header "To: stored@x.org")))
    (test-queue-mail (test-header "To: plain@x.org"))
    (let ((queue smtpmail-queue-dir)
          (first test-mailbox))
      (test-with-server nil
        (setq smtpmail-queue-dir queue)
        (test-flush)
        (should (equal '("plain@x.org") (plist-get (test-received 1) :recipients)))
        (let ((test-mailbox first))
          (should (equal '("stored@x.org")
                         (plist-get (test-received 1) :recipients))))))))

(defvar test-queue-evaluated nil "Whether something has been evaluated.")

(ert-deftest test-queue-nothing-is-evaluated ()
  (test-with-server nil
    (setq test-queue-evaluated nil)
    (cl-loop for (name elisp) in
             `(("a" "(setq test-queue-evaluated t)")
               ("b" "(progn (setq test-queue-evaluated t))")
               ("c" "(setq smtpmail-recipient-address-list (setq test-queue-evaluated t))")
               ("d" "(setq smtpmail-recipient-address-list (list \"a@x.org\"))")
               ("e" "(setq smtpmail-recipient-address-list")
               ("f" "")
               ("g" "(setq smtpmail-recipient-address-list nil)")
               ("h" "(setq smtpmail-recipient-address-list (\"a@x.org\") smtpmail-smtp-server 42)")
               ("i" "(setq smtpmail-recipient-address-list (\"a@x.org\" . \"b\"))"))
             do (test-queue-write name elisp "Subject: x\n\nHello\n"))
    (test-queue-write "z" "(setq smtpmail-recipient-address-list '(\"a@x.org\") \
test-queue-evaluated t smtpmail-queue-dir \"/\" smtpmail-smtp-server nil)"
                      "Subject: x\n\nHello\n")
    (let ((text (test-error #'test-flush)))
      (should (string-search "9 of 10" text))
      (dolist (name '("a" "b" "c" "d" "e" "f" "g" "h" "i"))
        (should (string-search (test-queue-file name) text))))
    (should-not test-queue-evaluated)
    (should (= 1 (test-received-count)))
    (should (= 18 (length (test-queue-files))))))

(ert-deftest test-queue-wedged-index ()
  (test-with-server nil
    (test-queue-write "2025-01-01_00:00:00_1" (test-stored-recipients "a@x.org")
                      "Subject: indexed\n\nHello\n")
    (test-queue-write "2025-01-01_00!00!00_2" (test-stored-recipients "b@x.org")
                      "Subject: not indexed\n\nHello\n")
    ;; The directory had another name.
    (test-queue-write "2025-01-01_00:00:00_4" (test-stored-recipients "d@x.org")
                      "Subject: moved\n\nHello\n")
    ;; Somebody else's.
    (test-queue-write "notes" nil "To do\n")
    (test-queue-write "init.el" nil "(setq x t)\n")
    (test-queue-write-index (concat "/old/2025-01-01_00:00:00_4")
                            ""
                            (test-queue-file "2025-01-01_00:00:00_1"))
    (test-flush)
    (should (equal '("d@x.org") (plist-get (test-received 1) :recipients)))
    (should (equal '("a@x.org") (plist-get (test-received 2) :recipients)))
    (should (equal '("b@x.org") (plist-get (test-received 3) :recipients)))
    (should (equal '("init.el" "notes") (test-queue-files)))
    (should (equal "\n" (test-queue-index)))))

(ert-deftest test-queue-bad-entries-stay ()
  (test-with-server nil
    (test-queue-write "2025-01-01_00:00:00_1" nil "Subject: no recipients\n\nHello\n")
    (test-queue-write "2025-01-01_00:00:00_2" (test-stored-recipients "Friends:" "a@x.org")
                      "Subject: smtpmail's idea of a group\n\nHello\n")
    (test-queue-write "2025-01-01_00:00:00_3" (test-stored-recipients "b@x.org")
                      "Subject: good\n\nHello\n")
    (apply #'test-queue-write-index
           (mapcar (lambda (number)
                     (test-queue-file (format "2025-01-01_00:00:00_%d" number)))
                   '(1 2 3)))
    (let ((text (test-error #'test-flush)))
      (should (string-search "2 of 3" text))
      (should (string-search "00_1.el is missing" text))
      (should (string-search "Friends:" text)))
    (should (equal '("b@x.org") (plist-get (test-received 1) :recipients)))
    (should (= 3 (length (test-queue-files))))
    (should (equal (test-queue-index)
                   (concat (test-queue-file "2025-01-01_00:00:00_1") "\n"
                           (test-queue-file "2025-01-01_00:00:00_2") "\n")))))

;;;; What Maildir programs do to the queue

(defmacro test-with-queue-in-maildir (directory &rest body)
  "Run BODY with smtpmail's queue in DIRECTORY, cur or new, of a maildir."
  (declare (indent 1) (debug t))
  `(test-with-server nil
     (let ((smtpmail-queue-dir (expand-file-name ,directory
                                                 (test-new-directory "maildir"))))
       (dolist (name '("cur" "new" "tmp"))
         (make-directory (expand-file-name (concat "../" name) smtpmail-queue-dir) t))
       ,@body)))

(defun test-queue-rename (from to)
  "Rename the file FROM in the queue to TO."
  (rename-file (test-queue-file from) (test-queue-file to)))

(defun test-queue-state ()
  "Return the names and contents of all that is in the queue and beside it."
  (mapcar (lambda (file) (cons file (test-bytes file)))
          (directory-files-recursively
           (test-queue-file "..") "\\`[^.]")))

(ert-deftest test-queue-renamed-messages ()
  "They are sent to all their recipients, as if they had their names."
  (dolist (directory '("cur" "new"))
    (test-with-queue-in-maildir directory
      (let ((renamings '(("~" . "~:2,S") ("~" . "~:2,") ("~" . "~;2,RS")
                         ("~" . "../cur/~") ("~" . "../new/~") ("~" . "../cur/~:2,S")
                         ("~.el" . "~.el:2,S") ("~.el" . "../cur/~.el:2,")))
            (count 0))
        (dolist (mailer (list #'rs-smtpmail-send-it #'smtpmail-send-it))
          (pcase-dolist (`(,from . ,to) renamings)
            (test-queue-mail (test-header "To: you@example.com"
                                          (format "Bcc: secret%d@z.org" (cl-incf count)))
                             nil mailer)
            (let* ((line (car (last (rs-smtpmail--index-lines))))
                   (name (file-name-nondirectory line))
                   (to (test-queue-file (string-replace "~" name to))))
              (unless (file-exists-p to)
                (rename-file (test-queue-file (string-replace "~" name from)) to)))))
        (test-flush)
        (should (= count (test-received-count)))
        (let (recipients)
          (dotimes (number count)
            (push (sort (plist-get (test-received (1+ number)) :recipients) #'string<)
                  recipients))
          (dotimes (number count)
            (should (member (list (format "secret%d@z.org" (1+ number)) "you@example.com")
                            recipients))))
        (should (equal (list (cons (test-queue-file "index") ""))
                       (test-queue-state)))
        (test-flush)
        (should (= count (test-received-count)))))))

(ert-deftest test-queue-renamed-messages-without-an-index ()
  (test-with-queue-in-maildir "cur"
    (test-queue-mail (test-header))
    (let ((name (car (test-queue-files))))
      (test-queue-rename name (concat name ":2,S"))
      (test-queue-rename "index" "index:2,S"))
    (test-flush)
    (should (= 1 (test-received-count)))
    (should (equal '("index:2,S") (test-queue-files)))))

(ert-deftest test-queue-renamed-message-stays-until-it-is-accepted ()
  (test-with-queue-in-maildir "cur"
    (test-queue-mail (test-header))
    (let ((name (car (test-queue-files))))
      (test-queue-rename name (concat name ":2,S"))
      (let ((before (test-queue-state)))
        (cl-letf (((symbol-function 'rs-smtp-send)
                   (lambda (&rest _) (error "The disk is full"))))
          (let ((text (test-error #'test-flush)))
            (should (string-search "The disk is full" text))
            (should (string-search (concat name ":2,S") text))))
        (should (equal before (test-queue-state)))))
    (test-flush)
    (should (= 1 (test-received-count)))))

(ert-deftest test-queue-what-does-not-add-up-stays ()
  "All of it is told by name, once, and nothing of it is touched."
  (test-with-queue-in-maildir "cur"
    (let ((name (lambda (number) (format "2025-01-01_00:00:00_%d" number)))
          (good "Subject: good\n\nHello\n")
          (rest "/other/index line\r\n\n/old/2024-01-01_00:00:00_7\n"))
      ;; One that is there twice.
      (test-queue-write (funcall name 1) (test-stored-recipients "a@x.org") good)
      (test-queue-write (concat (funcall name 1) ":2,S") nil good)
      ;; One both here and in new.
      (test-queue-write (funcall name 2) (test-stored-recipients "b@x.org") good)
      (test-queue-write (concat "../new/" (funcall name 2)) nil good)
      ;; The recipients without the message, in the index or not.
      (test-queue-write (funcall name 3) (test-stored-recipients "c@x.org") nil)
      (test-queue-write (funcall name 4) (test-stored-recipients "d@x.org") nil)
      (test-queue-write "other" (test-stored-recipients "e@x.org") nil)
      ;; One that the user does not want any more.
      (test-queue-write "gone" (test-stored-recipients "e@x.org") nil)
      (test-queue-write "gone:2,ST" nil good)
      ;; The message without its recipients, and with some that can't be read.
      (test-queue-write (concat (funcall name 5) ":2,S") nil good)
      (test-queue-write (funcall name 6) "(setq smtpmail-recipient-address-list (" good)
      (dolist (file (list (funcall name 8) (funcall name 9)))
        (test-queue-write file (test-stored-recipients "good@x.org") good))
      (let ((line (lambda (number end) (concat (test-queue-file (funcall name number)) end)))
            (coding-system-for-write 'no-conversion))
        (write-region (concat (mapconcat (lambda (number) (funcall line number "\n"))
                                         '(8 1 2 3 5) "")
                              (funcall line 9 "\r\n")
                              rest
                              (funcall line 6 ""))
                      nil (test-queue-file "index") nil 'silent)
        (let* ((before (test-queue-state))
               (warnings (test-with-warnings
                           (let ((rs-smtpmail-synchronous nil)
                                 (create-lockfiles nil))
                             (rs-smtpmail-send-queued-mail))
                           (test-wait-for-state)))
               (expected (seq-remove
                          (lambda (file)
                            (string-match-p "_[89]\\(?:\\.el\\)?\\'" (car file)))
                          before)))
          (should (= 1 (length warnings)))
          (dolist (part (append (mapcar name '(1 2 3 4 5 6))
                                '("cur/other.el" "/other/index line" "00:00:00_7"
                                  "_1:2,S" "new/2025-01-01_00:00:00_2"
                                  "_5.el is missing"
                                  "cur/gone:2,ST: The message is marked as deleted")))
            (should (string-search part (car warnings))))
          (setf (alist-get (caar (seq-filter (lambda (file)
                                               (string-suffix-p "/index" (car file)))
                                             expected))
                           expected nil nil #'equal)
                (concat (mapconcat (lambda (number) (funcall line number "\n"))
                                   '(1 2 3 5) "")
                        rest
                        (funcall line 6 "")))
          (should (equal expected (test-queue-state)))
          (should (= 2 (test-received-count)))
          ;; Also the second time.
          (should (string-search "Sending failed for 10 of 10" (test-error #'test-flush)))
          (should (equal expected (test-queue-state)))
          (should (= 2 (test-received-count))))))))

(ert-deftest test-queue-asynchronously ()
  (test-with-server nil
    (dotimes (number 5)
      (test-queue-mail (test-header (format "To: a%d@x.org" number))))
    (test-queue-write "bad" "(setq)" "Subject: x\n\nHello\n")
    (let ((rs-smtpmail-synchronous nil))
      (should (= 1 (length (test-with-warnings (rs-smtpmail-send-queued-mail))))))
    (test-wait-for-state)
    (should (= 5 (test-received-count)))))

(ert-deftest test-queue-flush-tries-what-waits-in-the-spool ()
  (test-with-server (test-script '(:stage "mail" :times "once" :reply "451 Later"))
    (should (string-search "451 Later" (test-error #'test-send-synchronously (test-header))))
    (should (equal '(pending) (test-states)))
    (test-flush)
    (should-not (rs-smtp-queue-list))
    (should (= 1 (test-received-count)))))

(ert-deftest test-queue-flush-tells-all-failures ()
  (test-with-server (test-script '(:stage "rcpt" :match "bad" :reply "550 No such user"))
    (dolist (to '("bad1@x.org" "good@x.org" "bad2@x.org"))
      (test-queue-mail (test-header (concat "To: " to))))
    (let ((text (test-error #'test-flush)))
      (should (string-search "2 of 3" text))
      (should (string-search "bad1@x.org" text))
      (should (string-search "bad2@x.org" text)))
    (should (= 1 (test-received-count)))
    (should (equal '(failed failed) (test-states)))))

(ert-deftest test-queue-locked-by-another-emacs ()
  (test-with-server nil
    (test-queue-mail (test-header))
    (let ((other (test-emacs
                  '(progn (let ((create-lockfiles t))
                            (lock-file (expand-file-name "index" smtpmail-queue-dir)))
                          (message "locked")
                          (read-string "")))))
      (sink-wait "the lock"
                 (lambda ()
                   (with-current-buffer (process-buffer other)
                     (string-search "locked" (buffer-string)))))
      (should (string-search "another Emacs" (test-error #'test-flush)))
      (should (= 2 (length (test-queue-files))))
      ;; No lock outlives its owner.
      (signal-process other 'SIGKILL)
      (test-finish other))
    (test-flush)
    (should (= 1 (test-received-count)))
    (should-not (directory-files smtpmail-queue-dir nil "\\`\\.#"))))

(ert-deftest test-queue-without-a-queue ()
  (test-with-server nil
    (test-flush)
    (should-not (file-exists-p smtpmail-queue-dir))))

(ert-deftest test-queue-mode-takes-over-sending-it ()
  (test-with-server nil
    (test-queue-mail (test-header))
    (rs-smtpmail-mode 1)
    (unwind-protect
        (let ((rs-smtpmail-synchronous t))
          (smtpmail-send-queued-mail))
      (rs-smtpmail-mode -1))
    (should (= 1 (test-received-count)))))

;;;; Interruptions

(defun test-queue-interrupted (form action number)
  "Evaluate FORM in an Emacs with ACTION at its file call NUMBER, from 0.
ACTION is `kill' or an error.  Return non-nil if there was such a call."
  (let* ((seen (test-file "calls"))
         (result
          (test-finish
           (test-emacs
            `(let ((calls 0))
               (require 'helper)
               (require 'rs-smtpmail-queue)
               (setq rs-smtpmail-synchronous nil
                     create-lockfiles nil)
               ;; Map the module, which defines its functions anew.
               (rs-smtp-version)
               (dolist (function '(rs-smtp-send rs-smtp-queue-export rs-smtp-queue-remove
                                   delete-file rename-file write-region))
                 (advice-add function :before
                             (lambda (&rest _)
                               (when (= calls ,number)
                                 (call-process "touch" nil nil nil ,seen)
                                 ,(if (eq action 'kill)
                                      '(signal-process (emacs-pid) 'SIGKILL)
                                    `(progn (cl-incf calls)
                                            (signal ',action '("Made to fail")))))
                               (cl-incf calls))))
               (setq rs-smtpmail-spool-directory ,rs-smtpmail-spool-directory)
               ;; Nothing is to be sent by this one.
               (advice-add 'rs-smtp-queue-flush :override #'ignore)
               (condition-case nil ,form (error nil)))))))
    (ert-info ((format "%S" result) :prefix "Emacs: ")
      (should (or (file-exists-p seen) (eq 0 (car result)))))
    (file-exists-p seen)))

(defun test-queue-everywhere-interrupted (prepare form &optional meanwhile)
  "Interrupt FORM at each of its file calls, after PREPARE, a function.
Two messages must then arrive, once, whatever MEANWHILE, a function, does."
  (dolist (action '(kill file-error))
    (let ((number 0)
          (more t))
      (while more
        (test-with-server nil
          (let ((rs-smtpmail-spool-directory (test-new-directory "spool")))
            (funcall prepare)
            (setq more (test-queue-interrupted form action number))
            (when meanwhile
              (funcall meanwhile))
            (test-emacs-output
             `(let ((spool ,rs-smtpmail-spool-directory))
                (require 'helper)
                (setq rs-smtpmail-spool-directory spool
                      create-lockfiles nil)
                (require 'rs-smtpmail-queue)
                (rs-smtpmail--adopt-queue)
                ;; Also what is for later.
                (dolist (entry (rs-smtp-queue-list))
                  (rs-smtp-queue-retry (plist-get entry :id)))
                (rs-smtpmail-send-queued-mail))))
          (ert-info ((format "%s at call %d" action number))
            (should (= 2 (test-received-count)))
            (should (equal '(("a@x.org") ("b@x.org"))
                           (sort (list (plist-get (test-received 1) :recipients)
                                       (plist-get (test-received 2) :recipients))
                                 (lambda (one other) (string< (car one) (car other))))))
            (should-not (remove "index~" (test-queue-files)))
            (should-not (rs-smtpmail--index-lines))))
        (cl-incf number))
      (should (> number 6)))))

(ert-deftest test-queue-adoption-interrupted-anywhere ()
  (test-queue-everywhere-interrupted
   (lambda ()
     (dolist (name '("a" "b"))
       (test-queue-write (format "2025-01-01_00:00:00_%s" name)
                         (test-stored-recipients (concat name "@x.org"))
                         "Subject: x\n\nHello\n"))
     (test-queue-write-index (test-queue-file "2025-01-01_00:00:00_a")
                             (test-queue-file "2025-01-01_00:00:00_b")))
   '(rs-smtpmail-send-queued-mail)))

(ert-deftest test-queue-adoption-interrupted-and-files-renamed ()
  "A program that marks mail as read gets at the files before we do."
  (test-queue-everywhere-interrupted
   (lambda ()
     (dolist (name '("a" "b"))
       (test-queue-write (format "2025-01-01_00:00:00_%s" name)
                         (test-stored-recipients (concat name "@x.org"))
                         "Subject: x\n\nHello\n"))
     (test-queue-write-index (test-queue-file "2025-01-01_00:00:00_a")
                             (test-queue-file "2025-01-01_00:00:00_b")))
   '(rs-smtpmail-send-queued-mail)
   (lambda ()
     (dolist (name '("a" "b"))
       (let ((file (test-queue-file (format "2025-01-01_00:00:00_%s" name))))
         (when (file-exists-p file)
           (rename-file file (concat file ":2,S"))))))))

(ert-deftest test-queue-export-interrupted-anywhere ()
  (test-queue-everywhere-interrupted
   (lambda ()
     (test-emacs-output
      `(let ((spool ,rs-smtpmail-spool-directory))
         (require 'helper)
         (setq rs-smtpmail-spool-directory spool)
         (dolist (to '("a@x.org" "b@x.org"))
           (rs-smtp-send "Subject: x\n\nHello\n" "me@example.org" (list to)
                         (list :host "localhost" :port smtpmail-smtp-service)
                         nil
                         (list :not-before (time-add nil 3600)))))))
   '(rs-smtpmail-export-queue)))

(ert-deftest test-queue-export ()
  "What is exported, smtpmail sends."
  (test-with-server nil
    (let ((later (time-add nil 3600)))
      (rs-smtp-send (encode-coding-string "From: me@example.org\nSubject: x\n\nGrüße\n" 'utf-8)
                    "me@example.org" '("a@x.org" "\"b c\"@y.org")
                    (list :host smtpmail-smtp-server :port smtpmail-smtp-service
                          :stream-type 'plain)
                    nil (list :not-before later))
      (should (equal '(scheduled) (test-states)))
      (let ((create-lockfiles nil))
        (should (= 1 (rs-smtpmail-export-queue)))))
    (should-not (rs-smtp-queue-list))
    (should (= #o600 (logand #o777 (file-modes (test-queue-file (car (test-queue-files)))))))
    (setq test-foreign-connections '(1))
    (let ((smtpmail-smtp-server nil))
      (smtpmail-send-queued-mail))
    (should (equal '("a@x.org" "\"b c\"@y.org") (plist-get (test-received 1) :recipients)))
    (should (string-suffix-p (encode-coding-string "\r\n\r\nGrüße\r\n" 'utf-8)
                             (plist-get (test-received 1) :bytes)))))

(ert-deftest test-queue-export-leaves-what-is-in-the-queue ()
  (test-with-server nil
    (test-queue-write "a" (test-stored-recipients "a@x.org") "Subject: x\n\nHello\n")
    (rs-smtp-send "From: me@example.org\nSubject: x\n\nHello\n"
                  "me@example.org" '("a@x.org")
                  (list :host smtpmail-smtp-server :port smtpmail-smtp-service
                        :stream-type 'plain)
                  nil (list :origin (test-queue-file "a")))
    (should (equal '(held) (test-states)))
    (should (= 0 (rs-smtpmail-export-queue)))
    (test-flush)
    (should (= 1 (test-received-count)))
    (should-not (test-queue-files))))

(ert-deftest test-queue-export-and-back ()
  "What only we know of a message is known again after it has been moved."
  (test-with-server nil
    (rs-smtp-send "From: me@example.org\nSubject: x\n\nHello\n"
                  "me@example.org" '("a@x.org")
                  (list :host smtpmail-smtp-server :port smtpmail-smtp-service
                        :stream-type 'plain)
                  nil '(:not-before 4102444800.0 :copy "\"file it\""))
    (rs-smtpmail-export-queue)
    (should-not (rs-smtp-queue-list))
    (rs-smtpmail-send-queued-mail)
    (should-not (test-queue-files))
    (let ((entry (car (rs-smtp-queue-list))))
      (should (eq 'scheduled (plist-get entry :state)))
      (should (= 4102444800.0 (plist-get entry :not-before)))
      (should (equal "\"file it\"" (plist-get entry :copy)))
      (should (equal 'plain (plist-get (plist-get entry :server) :stream-type)))
      (rs-smtp-queue-remove (plist-get entry :id)))
    (dolist (options '((:copy (delete-file "/")) (:not-before "x") (:dsn nil) (:copy)))
      (test-queue-write "bad" (format "(setq smtpmail-recipient-address-list (\"a@x.org\") \
rs-smtpmail--queued-options %S)" options)
                        "Subject: x\n\nHello\n")
      (should (string-search "strange value to rs-smtpmail--queued-options"
                             (test-error #'test-flush))))
    (should-not (rs-smtp-queue-list))))

(provide 'test-queue)

;;; test-queue.el ends here
